//! The codes that are used, with the displays of their systems: LOINC, SNOMED CT, RxNorm, CVX, ICD-10-CM, and HL7's own.

use crate::resources::{Coding, Concept};

const SNOMED: &str = "http://snomed.info/sct";
const ICD10: &str = "http://hl7.org/fhir/sid/icd-10-cm";
const LOINC: &str = "http://loinc.org";
const RXNORM: &str = "http://www.nlm.nih.gov/research/umls/rxnorm";
const CVX: &str = "http://hl7.org/fhir/sid/cvx";

/// A concept of one coding, whose display is its text.
macro_rules! concept {
    ($system:expr, $code:literal, $display:literal) => {
        Concept {
            coding: &[Coding { system: $system, code: $code, display: Some($display) }],
            text: Some($display),
        }
    };
}

/// A condition, in SNOMED CT and ICD-10-CM.
macro_rules! condition {
    ($snomed:literal, $display:literal, $icd:literal, $icd_display:literal) => {
        Concept {
            coding: &[
                Coding { system: SNOMED, code: $snomed, display: Some($display) },
                Coding { system: ICD10, code: $icd, display: Some($icd_display) },
            ],
            text: Some($display),
        }
    };
}

// Encounters.
pub(crate) const GENERAL_EXAMINATION: Concept =
    concept!(SNOMED, "162673000", "General examination of patient (procedure)");
pub(crate) const WELL_CHILD: Concept = concept!(SNOMED, "410620009", "Well child visit (procedure)");
pub(crate) const FOLLOW_UP: Concept = concept!(SNOMED, "390906007", "Follow-up encounter");
pub(crate) const SYMPTOM: Concept = concept!(SNOMED, "185345009", "Encounter for symptom");
pub(crate) const CHECK_UP: Concept = concept!(SNOMED, "185349003", "Encounter for check up (procedure)");
pub(crate) const OUTPATIENT_PROCEDURE: Concept = concept!(SNOMED, "371883000", "Outpatient procedure");

// Chronic conditions.
pub(crate) const HYPERTENSION: Concept =
    condition!("59621000", "Essential hypertension (disorder)", "I10", "Essential (primary) hypertension");
pub(crate) const DIABETES: Concept = condition!(
    "44054006",
    "Diabetes mellitus type 2 (disorder)",
    "E11.9",
    "Type 2 diabetes mellitus without complications"
);
pub(crate) const HYPERLIPIDEMIA: Concept =
    condition!("55822004", "Hyperlipidemia (disorder)", "E78.5", "Hyperlipidemia, unspecified");
pub(crate) const ASTHMA: Concept =
    condition!("195967001", "Asthma (disorder)", "J45.909", "Unspecified asthma, uncomplicated");

// What brings people in for a visit.
pub(crate) const SINUSITIS: Concept =
    condition!("444814009", "Viral sinusitis (disorder)", "J01.90", "Acute sinusitis, unspecified");
pub(crate) const PHARYNGITIS: Concept =
    condition!("195662009", "Acute viral pharyngitis (disorder)", "J02.9", "Acute pharyngitis, unspecified");
pub(crate) const BRONCHITIS: Concept =
    condition!("10509002", "Acute bronchitis (disorder)", "J20.9", "Acute bronchitis, unspecified");
pub(crate) const OTITIS: Concept =
    condition!("65363002", "Otitis media (disorder)", "H66.90", "Otitis media, unspecified, unspecified ear");

// Medication.
pub(crate) const METFORMIN: Concept =
    concept!(RXNORM, "860975", "24 HR metformin hydrochloride 500 MG Extended Release Oral Tablet");
pub(crate) const LISINOPRIL: Concept = concept!(RXNORM, "314076", "lisinopril 10 MG Oral Tablet");
pub(crate) const AMLODIPINE: Concept = concept!(RXNORM, "197361", "Amlodipine 5 MG Oral Tablet");
pub(crate) const HYDROCHLOROTHIAZIDE: Concept =
    concept!(RXNORM, "310798", "Hydrochlorothiazide 25 MG Oral Tablet");
pub(crate) const SIMVASTATIN: Concept = concept!(RXNORM, "312961", "Simvastatin 20 MG Oral Tablet");
pub(crate) const FLUTICASONE: Concept =
    concept!(RXNORM, "895994", "120 ACTUAT Fluticasone propionate 0.044 MG/ACTUAT Metered Dose Inhaler");
pub(crate) const ACETAMINOPHEN: Concept = concept!(RXNORM, "313782", "Acetaminophen 325 MG Oral Tablet");
pub(crate) const ACETAMINOPHEN_CHEWABLE: Concept =
    concept!(RXNORM, "313820", "Acetaminophen 160 MG Chewable Tablet");
pub(crate) const IBUPROFEN: Concept = concept!(RXNORM, "310965", "Ibuprofen 200 MG Oral Tablet");

// Procedures.
pub(crate) const COLONOSCOPY: Concept = concept!(SNOMED, "73761001", "Colonoscopy");
pub(crate) const MAMMOGRAPHY: Concept = concept!(SNOMED, "24623002", "Screening mammography (procedure)");
pub(crate) const HOSPICE: Concept = concept!(SNOMED, "385763009", "Hospice care (regime/therapy)");
pub(crate) const MEDICATION_RECONCILIATION: Concept =
    concept!(SNOMED, "430193006", "Medication Reconciliation (procedure)");

// Vital signs.
pub(crate) const HEIGHT: Concept = concept!(LOINC, "8302-2", "Body Height");
pub(crate) const WEIGHT: Concept = concept!(LOINC, "29463-7", "Body Weight");
pub(crate) const BODY_MASS_INDEX: Concept = concept!(LOINC, "39156-5", "Body Mass Index");
pub(crate) const HEART_RATE: Concept = concept!(LOINC, "8867-4", "Heart rate");
pub(crate) const TEMPERATURE: Concept = concept!(LOINC, "8310-5", "Body temperature");
pub(crate) const BLOOD_PRESSURE: Concept = concept!(LOINC, "85354-9", "Blood Pressure");
pub(crate) const SYSTOLIC: Concept = concept!(LOINC, "8480-6", "Systolic Blood Pressure");
pub(crate) const DIASTOLIC: Concept = concept!(LOINC, "8462-4", "Diastolic Blood Pressure");

// Laboratory.
pub(crate) const HBA1C: Concept = concept!(LOINC, "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood");
pub(crate) const GLUCOSE: Concept = concept!(LOINC, "2339-0", "Glucose");
pub(crate) const CREATININE: Concept = concept!(LOINC, "38483-4", "Creatinine");
pub(crate) const SODIUM: Concept = concept!(LOINC, "2947-0", "Sodium");
pub(crate) const POTASSIUM: Concept = concept!(LOINC, "6298-4", "Potassium");
pub(crate) const CHLORIDE: Concept = concept!(LOINC, "2069-3", "Chloride");
pub(crate) const CARBON_DIOXIDE: Concept = concept!(LOINC, "20565-8", "Carbon Dioxide");
pub(crate) const UREA_NITROGEN: Concept = concept!(LOINC, "6299-2", "Urea Nitrogen");
pub(crate) const CALCIUM: Concept = concept!(LOINC, "49765-1", "Calcium");
pub(crate) const METABOLIC_PANEL: Concept = concept!(LOINC, "51990-0", "Basic Metabolic Panel");
pub(crate) const TOTAL_CHOLESTEROL: Concept = concept!(LOINC, "2093-3", "Total Cholesterol");
pub(crate) const TRIGLYCERIDES: Concept = concept!(LOINC, "2571-8", "Triglycerides");
pub(crate) const LDL: Concept = concept!(LOINC, "18262-6", "Low Density Lipoprotein Cholesterol");
pub(crate) const HDL: Concept = concept!(LOINC, "2085-9", "High Density Lipoprotein Cholesterol");
pub(crate) const LIPID_PANEL: Concept = concept!(LOINC, "57698-3", "Lipid Panel");
pub(crate) const STOOL_TEST: Concept =
    concept!(LOINC, "29771-3", "Hemoglobin.gastrointestinal.lower [Presence] in Stool by Immunoassay");
pub(crate) const NEGATIVE: Concept = concept!(SNOMED, "260385009", "Negative (qualifier value)");

// Vaccines.
pub(crate) const DTAP: Concept = concept!(CVX, "20", "DTaP");
pub(crate) const POLIO: Concept = concept!(CVX, "10", "IPV");
pub(crate) const MMR: Concept = concept!(CVX, "03", "MMR");
pub(crate) const HIB: Concept = concept!(CVX, "49", "Hib (PRP-OMP)");
pub(crate) const HEPATITIS_B: Concept = concept!(CVX, "08", "Hep B, adolescent or pediatric");
pub(crate) const VARICELLA: Concept = concept!(CVX, "21", "varicella");
pub(crate) const PNEUMOCOCCAL: Concept = concept!(CVX, "133", "Pneumococcal conjugate PCV 13");
pub(crate) const ROTAVIRUS: Concept = concept!(CVX, "119", "rotavirus, monovalent");
pub(crate) const HEPATITIS_A: Concept = concept!(CVX, "83", "Hep A, ped/adol, 2 dose");
pub(crate) const TDAP: Concept = concept!(CVX, "115", "Tdap");
pub(crate) const HPV: Concept = concept!(CVX, "165", "HPV9");
pub(crate) const MENINGOCOCCAL: Concept = concept!(CVX, "114", "meningococcal MCV4P");
pub(crate) const INFLUENZA: Concept =
    concept!(CVX, "140", "Influenza, seasonal, injectable, preservative free");

/// What HL7 defines itself.
pub(crate) mod hl7 {
    use super::{Coding, Concept};

    /// A concept of one coding without a text.
    macro_rules! coded {
        ($system:literal, $code:literal, $display:literal) => {
            Concept {
                coding: &[Coding { system: $system, code: $code, display: Some($display) }],
                text: None,
            }
        };
    }

    pub(crate) const TEST_DATA: Coding = Coding {
        system: "http://terminology.hl7.org/CodeSystem/v3-ActReason",
        code: "HTEST",
        display: Some("test health data"),
    };
    pub(crate) const AMBULATORY: Coding = Coding {
        system: "http://terminology.hl7.org/CodeSystem/v3-ActCode",
        code: "AMB",
        display: Some("ambulatory"),
    };
    pub(crate) const VITAL_SIGNS: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs", "Vital Signs");
    pub(crate) const LABORATORY: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory", "Laboratory");
    pub(crate) const REPORT_LABORATORY: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB", "Laboratory");
    pub(crate) const ACTIVE: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/condition-clinical", "active", "Active");
    pub(crate) const RESOLVED: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/condition-clinical", "resolved", "Resolved");
    pub(crate) const CONFIRMED: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed", "Confirmed");
    pub(crate) const PROBLEM: Concept = coded!(
        "http://terminology.hl7.org/CodeSystem/condition-category",
        "problem-list-item",
        "Problem List Item"
    );
    pub(crate) const DIAGNOSIS: Concept = coded!(
        "http://terminology.hl7.org/CodeSystem/condition-category",
        "encounter-diagnosis",
        "Encounter Diagnosis"
    );
    pub(crate) const PERFORMER: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "PPRF", "primary performer");
    pub(crate) const PROVIDER: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/organization-type", "prov", "Healthcare Provider");
    pub(crate) const PAYER: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/organization-type", "pay", "Payer");
    pub(crate) const RECORD_NUMBER: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/v2-0203", "MR", "Medical record number");
    pub(crate) const CREATE: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/v3-DataOperation", "CREATE", "create");
    pub(crate) const AUTHOR: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "author", "Author");
    pub(crate) const ASSEMBLER: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "assembler", "Assembler");
    pub(crate) const CARE_GAP: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/v3-ActCode", "CAREGAP", "Caregap");
    pub(crate) const PROPORTION: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/measure-scoring", "proportion", "Proportion");
    pub(crate) const INCREASE: Concept = coded!(
        "http://terminology.hl7.org/CodeSystem/measure-improvement-notation",
        "increase",
        "Increased score indicates improvement"
    );
    pub(crate) const PROCESS: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/measure-type", "process", "Process");
    pub(crate) const OUTCOME: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/measure-type", "outcome", "Outcome");
    pub(crate) const INITIAL_POPULATION: Concept = coded!(
        "http://terminology.hl7.org/CodeSystem/measure-population",
        "initial-population",
        "Initial Population"
    );
    pub(crate) const DENOMINATOR: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/measure-population", "denominator", "Denominator");
    pub(crate) const EXCLUSION: Concept = coded!(
        "http://terminology.hl7.org/CodeSystem/measure-population",
        "denominator-exclusion",
        "Denominator Exclusion"
    );
    pub(crate) const NUMERATOR: Concept =
        coded!("http://terminology.hl7.org/CodeSystem/measure-population", "numerator", "Numerator");
}
