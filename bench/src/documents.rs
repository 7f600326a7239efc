//! What is written: resources of 1.3 KB, as a laboratory sends them.

/// The content of an Observation, `@` in the place of its number: 1.3 KB when it is streamed.
pub const OBSERVATION: &str = concat!(
    r#"{"resourceType":"Observation","meta":{"profile":["http://hl7.org/fhir/us/core/StructureDefinition/"#,
    r#"us-core-observation-lab"]},"identifier":[{"system":"http://hospital.example/observations","value":"O-@"}],"#,
    r#""status":"final","category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/"#,
    r#"observation-category","code":"laboratory","display":"Laboratory"}]}],"code":{"coding":[{"system":"#,
    r#""http://loinc.org","code":"2093-3","display":"Cholesterol [Mass/volume] in Serum or Plasma"}],"text":"#,
    r#""Total Cholesterol"},"subject":{"reference":"Patient/0b8a6ef0-07c8-48ca-804d-1e64f6e44b95","display":"#,
    r#""Synthetic Person"},"encounter":{"reference":"Encounter/50a45a1c-308a-42f1-8232-a5d5c0846dd5"},"#,
    r#""effectiveDateTime":"2026-03-14T09:26:53.589+00:00","issued":"2026-03-14T09:26:53.589+00:00","#,
    r#""performer":[{"reference":"Organization/7c9e6679-7425-40de-944b-e07fc1f90ae7","display":"#,
    r#""Laboratory \"North\""}],"valueQuantity":{"value":187.50,"unit":"mg/dL","system":"#,
    r#""http://unitsofmeasure.org","code":"mg/dL"},"interpretation":[{"coding":[{"system":"#,
    r#""http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation","code":"N","display":"Normal"}]}],"#,
    r#""referenceRange":[{"high":{"value":200.00,"unit":"mg/dL","system":"http://unitsofmeasure.org","code":"#,
    r#""mg/dL"},"text":"below 200 mg/dL"}]}"#,
);

/// The type of them all.
pub const TYPE: &str = "Observation";

/// The content of one.
pub fn observation(number: u64) -> String {
    OBSERVATION.replace('@', &number.to_string())
}

/// A frame as the service sends it, for those who send without it.
pub fn frame(number: u64) -> String {
    let content = observation(number);
    let (kind, rest) = content.split_once(r#""meta":{"#).unwrap_or((&content, ""));
    format!(
        "id: EQkMtu_m9EhSAAAAAAGUBagAAAAGYOSanMzy2zkhQA\nevent: {TYPE}\ndata: {kind}\"id\":\"o-{number:09}\",\"meta\":{{\"versionId\":\
         \"{number:09}\",\"lastUpdated\":\"2026-03-14T09:26:53.589793Z\",{rest}\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_json_of_the_size_that_is_promised() {
        let content: serde_json::Value = serde_json::from_str(&observation(7)).unwrap();
        assert_eq!(content["identifier"][0]["value"], "O-7");
        let frame = frame(7);
        let data = frame.lines().nth(2).unwrap().strip_prefix("data: ").unwrap();
        assert!((1_250..1_400).contains(&data.len()), "{}", data.len());
        let streamed: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(streamed["id"], "o-000000007");
        assert_eq!(streamed["valueQuantity"], content["valueQuantity"]);
    }
}
