// One line that says what a resource is about.

import { conceptText, personName, referenced } from "./fhir.js";

/**
 * In a few words, for those types that have some; else whatever text or code there is. A table takes any JSON: of what is
 * not as FHIR has it, nothing is said.
 */
export function summary(resource) {
  try {
    const words = [about(resource), value(resource), resource.status];
    return words.filter((word) => typeof word === "string" && word !== "").join(" · ");
  } catch {
    return "";
  }
}

function about(resource) {
  switch (resource.resourceType) {
    case "Patient":
    case "Practitioner":
    case "RelatedPerson":
      return [personName(resource.name), resource.gender, resource.birthDate].filter(Boolean).join(", ");
    case "DetectedIssue": {
      const extension = resource.modifierExtension?.find(({ url }) => url.endsWith("gapStatus"));
      return conceptText(extension?.valueCodeableConcept) ?? conceptText(resource.code);
    }
    case "MeasureReport":
      return [String(resource.measure ?? "").split("/").pop(), referenced(resource.subject)].filter(Boolean).join(", ");
    case "Encounter":
      return conceptText(resource.type?.[0]) ?? resource.class?.display ?? resource.class?.code;
    case "MedicationRequest":
      return conceptText(resource.medicationCodeableConcept);
    case "Immunization":
      return conceptText(resource.vaccineCode);
    default:
      return firstText(resource.title, resource.name, conceptText(resource.code), conceptText(resource.type));
  }
}

const firstText = (...texts) => texts.find((text) => typeof text === "string");

function value(resource) {
  const quantity = resource.valueQuantity;
  if (quantity?.value !== undefined) return `${quantity.value} ${quantity.unit ?? quantity.code ?? ""}`.trim();
  return conceptText(resource.valueCodeableConcept) ?? resource.valueString;
}
