//! The resource types of FHIR R4 (4.0.1), and sets of them.
//!
//! A type is a small number, so that a set is a few words and an index by type is an array.

use std::fmt;
use std::str::FromStr;

/// How many resource types R4 has.
pub const COUNT: usize = 146;

/// The names, sorted: a type is its index in this table.
const NAMES: [&str; COUNT] = [
    "Account",
    "ActivityDefinition",
    "AdverseEvent",
    "AllergyIntolerance",
    "Appointment",
    "AppointmentResponse",
    "AuditEvent",
    "Basic",
    "Binary",
    "BiologicallyDerivedProduct",
    "BodyStructure",
    "Bundle",
    "CapabilityStatement",
    "CarePlan",
    "CareTeam",
    "CatalogEntry",
    "ChargeItem",
    "ChargeItemDefinition",
    "Claim",
    "ClaimResponse",
    "ClinicalImpression",
    "CodeSystem",
    "Communication",
    "CommunicationRequest",
    "CompartmentDefinition",
    "Composition",
    "ConceptMap",
    "Condition",
    "Consent",
    "Contract",
    "Coverage",
    "CoverageEligibilityRequest",
    "CoverageEligibilityResponse",
    "DetectedIssue",
    "Device",
    "DeviceDefinition",
    "DeviceMetric",
    "DeviceRequest",
    "DeviceUseStatement",
    "DiagnosticReport",
    "DocumentManifest",
    "DocumentReference",
    "EffectEvidenceSynthesis",
    "Encounter",
    "Endpoint",
    "EnrollmentRequest",
    "EnrollmentResponse",
    "EpisodeOfCare",
    "EventDefinition",
    "Evidence",
    "EvidenceVariable",
    "ExampleScenario",
    "ExplanationOfBenefit",
    "FamilyMemberHistory",
    "Flag",
    "Goal",
    "GraphDefinition",
    "Group",
    "GuidanceResponse",
    "HealthcareService",
    "ImagingStudy",
    "Immunization",
    "ImmunizationEvaluation",
    "ImmunizationRecommendation",
    "ImplementationGuide",
    "InsurancePlan",
    "Invoice",
    "Library",
    "Linkage",
    "List",
    "Location",
    "Measure",
    "MeasureReport",
    "Media",
    "Medication",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationKnowledge",
    "MedicationRequest",
    "MedicationStatement",
    "MedicinalProduct",
    "MedicinalProductAuthorization",
    "MedicinalProductContraindication",
    "MedicinalProductIndication",
    "MedicinalProductIngredient",
    "MedicinalProductInteraction",
    "MedicinalProductManufactured",
    "MedicinalProductPackaged",
    "MedicinalProductPharmaceutical",
    "MedicinalProductUndesirableEffect",
    "MessageDefinition",
    "MessageHeader",
    "MolecularSequence",
    "NamingSystem",
    "NutritionOrder",
    "Observation",
    "ObservationDefinition",
    "OperationDefinition",
    "OperationOutcome",
    "Organization",
    "OrganizationAffiliation",
    "Parameters",
    "Patient",
    "PaymentNotice",
    "PaymentReconciliation",
    "Person",
    "PlanDefinition",
    "Practitioner",
    "PractitionerRole",
    "Procedure",
    "Provenance",
    "Questionnaire",
    "QuestionnaireResponse",
    "RelatedPerson",
    "RequestGroup",
    "ResearchDefinition",
    "ResearchElementDefinition",
    "ResearchStudy",
    "ResearchSubject",
    "RiskAssessment",
    "RiskEvidenceSynthesis",
    "Schedule",
    "SearchParameter",
    "ServiceRequest",
    "Slot",
    "Specimen",
    "SpecimenDefinition",
    "StructureDefinition",
    "StructureMap",
    "Subscription",
    "Substance",
    "SubstanceNucleicAcid",
    "SubstancePolymer",
    "SubstanceProtein",
    "SubstanceReferenceInformation",
    "SubstanceSourceMaterial",
    "SubstanceSpecification",
    "SupplyDelivery",
    "SupplyRequest",
    "Task",
    "TerminologyCapabilities",
    "TestReport",
    "TestScript",
    "ValueSet",
    "VerificationResult",
    "VisionPrescription",
];

/// A resource type of FHIR R4: <https://hl7.org/fhir/R4/resourcelist.html>.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceType(u8);

/// The text is not the name of an R4 resource type.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a resource type of FHIR R4")]
pub struct UnknownResourceType(pub String);

impl ResourceType {
    /// What a deletion is sent as.
    pub const BUNDLE: Self = Self::named("Bundle");
    /// What a notice is sent as.
    pub const OPERATION_OUTCOME: Self = Self::named("OperationOutcome");
    /// The centre of most compartments.
    pub const PATIENT: Self = Self::named("Patient");
    /// A Group's export is that of its members' compartments.
    pub const GROUP: Self = Self::named("Group");

    /// Looked up when the program is compiled: a wrong name does not build.
    const fn named(name: &str) -> Self {
        let mut index = 0;
        while index < COUNT {
            if const_eq(NAMES[index].as_bytes(), name.as_bytes()) {
                // COUNT is below 256.
                #[allow(clippy::cast_possible_truncation)]
                return Self(index as u8);
            }
            index += 1;
        }
        #[allow(clippy::panic)]
        {
            panic!("no such resource type");
        }
    }

    /// Every type, in the order of their names.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).take(COUNT).map(Self)
    }

    /// The type's name as FHIR writes it.
    pub const fn as_str(self) -> &'static str {
        NAMES[self.0 as usize]
    }

    /// The type's place in the alphabet, below [`COUNT`]: an index for tables by type.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The type at a place that [`index`](Self::index) gave; none beyond the table.
    pub fn from_index(index: usize) -> Option<Self> {
        u8::try_from(index).ok().filter(|_| index < COUNT).map(Self)
    }
}

const fn const_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

impl FromStr for ResourceType {
    type Err = UnknownResourceType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        NAMES
            .binary_search(&name)
            .ok()
            .and_then(Self::from_index)
            .ok_or_else(|| UnknownResourceType(name.to_owned()))
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const WORDS: usize = COUNT.div_ceil(64);

/// A set of resource types.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TypeSet([u64; WORDS]);

impl TypeSet {
    /// Every type of R4.
    pub fn all() -> Self {
        ResourceType::all().collect()
    }

    /// Adds a type.
    pub fn insert(&mut self, kind: ResourceType) {
        self.0[kind.index() / 64] |= 1 << (kind.index() % 64);
    }

    /// Whether the set has the type.
    pub fn contains(&self, kind: ResourceType) -> bool {
        self.0[kind.index() / 64] & (1 << (kind.index() % 64)) != 0
    }

    /// Whether the set has no type.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// The types in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = ResourceType> + '_ {
        ResourceType::all().filter(|kind| self.contains(*kind))
    }

    /// The set as words, the same for equal sets: for hashes that outlive the process.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}

impl FromIterator<ResourceType> for TypeSet {
    fn from_iter<I: IntoIterator<Item = ResourceType>>(types: I) -> Self {
        let mut set = Self::default();
        types.into_iter().for_each(|kind| set.insert(kind));
        set
    }
}

impl fmt::Debug for TypeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(NAMES.is_sorted());
        for kind in ResourceType::all() {
            assert_eq!(kind.as_str().parse::<ResourceType>().unwrap(), kind);
        }
        assert!("patient".parse::<ResourceType>().is_err());
        assert!("DomainResource".parse::<ResourceType>().is_err());
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        assert_eq!(TypeSet::all().iter().count(), COUNT);
        let set: TypeSet = [ResourceType::PATIENT, ResourceType::BUNDLE].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [ResourceType::BUNDLE, ResourceType::PATIENT]);
        assert!(!set.contains(ResourceType::GROUP));
    }
}
