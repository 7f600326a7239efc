//! What people and places are called.

/// Given names of those born before 1965, up to 1995, and later: (female, male).
pub(crate) const GIVEN: [(&[&str], &[&str]); 3] = [
    (
        &[
            "Barbara", "Carol", "Deborah", "Dorothy", "Eileen", "Gloria", "Helen", "Janet", "Joyce", "Judith", "Karen",
            "Linda", "Margaret", "Marilyn", "Nancy", "Patricia", "Rosa", "Ruth", "Shirley", "Susan", "Teresa",
            "Virginia", "Yvonne",
        ],
        &[
            "Arthur", "Carlos", "Charles", "Dennis", "Donald", "Douglas", "Edward", "Frank", "George", "Gerald",
            "Harold", "James", "Jorge", "Kenneth", "Lawrence", "Leonard", "Paul", "Raymond", "Richard", "Robert",
            "Thomas", "Walter", "William",
        ],
    ),
    (
        &[
            "Amanda", "Angela", "Ashley", "Brenda", "Christina", "Danielle", "Denise", "Erica", "Fatima", "Heather",
            "Jennifer", "Kimberly", "Latoya", "Laura", "Maria", "Melissa", "Mei", "Michelle", "Nicole", "Priya",
            "Rachel", "Stephanie", "Tamara",
        ],
        &[
            "Adrian", "Andre", "Anthony", "Brian", "Christopher", "Daniel", "David", "Eric", "Gregory", "Hassan",
            "Jason", "Jeffrey", "Joshua", "Kevin", "Luis", "Marcus", "Matthew", "Michael", "Minh", "Patrick", "Ryan",
            "Steven", "Timothy",
        ],
    ),
    (
        &[
            "Abigail", "Amelia", "Aria", "Ava", "Camila", "Chloe", "Ella", "Emma", "Evelyn", "Harper", "Isabella",
            "Layla", "Leilani", "Lily", "Luna", "Mia", "Naomi", "Nora", "Olivia", "Sofia", "Sophia", "Zoe", "Zuri",
        ],
        &[
            "Aiden", "Alexander", "Amir", "Benjamin", "Caleb", "Diego", "Elijah", "Ethan", "Gabriel", "Henry",
            "Isaac", "Jayden", "Kai", "Leo", "Levi", "Liam", "Lucas", "Mateo", "Noah", "Oliver", "Owen", "Theo",
            "Xavier",
        ],
    ),
];

/// Family names.
pub(crate) const FAMILY: &[&str] = &[
    "Adams", "Alvarez", "Andersen", "Baker", "Banerjee", "Barnes", "Bennett", "Brooks", "Campbell", "Carter", "Castillo",
    "Chen", "Clarke", "Cohen", "Collins", "Cruz", "Davis", "Diaz", "Edwards", "Evans", "Fernandes", "Fischer", "Flores",
    "Foster", "Garcia", "Gomez", "Gray", "Green", "Haddad", "Hall", "Hansen", "Harris", "Hernandez", "Hughes", "Ibrahim",
    "Jackson", "Jensen", "Johnson", "Jones", "Kelly", "Khan", "Kim", "King", "Kowalski", "Lee", "Lewis", "Lopez",
    "Martin", "Martinez", "Mbeki", "Meyer", "Miller", "Mitchell", "Moore", "Morales", "Murphy", "Nelson", "Nguyen",
    "Novak", "Nowak", "O'Brien", "O'Connor", "Okafor", "Oliveira", "Ortiz", "Osei", "Park", "Parker", "Patel", "Pereira",
    "Perez", "Peterson", "Phillips", "Popescu", "Price", "Ramirez", "Reyes", "Richardson", "Rivera", "Roberts",
    "Robinson", "Rodriguez", "Rossi", "Russell", "Sanchez", "Santos", "Schmidt", "Scott", "Shah", "Silva", "Singh",
    "Smith", "Stewart", "Sullivan", "Suzuki", "Tanaka", "Taylor", "Thomas", "Thompson", "Torres", "Tran", "Turner",
    "Walker", "Wang", "Ward", "Washington", "Watson", "White", "Williams", "Wilson", "Wright", "Yamamoto", "Yilmaz",
    "Young", "Zhang",
];

/// Towns of Massachusetts around the clinic, with a ZIP code of each.
pub(crate) const TOWNS: &[(&str, &str)] = &[
    ("Arlington", "02474"), ("Belmont", "02478"), ("Boston", "02118"), ("Brookline", "02445"), ("Cambridge", "02139"),
    ("Dedham", "02026"), ("Everett", "02149"), ("Framingham", "01702"), ("Lexington", "02420"), ("Lowell", "01852"),
    ("Lynn", "01902"), ("Malden", "02148"), ("Medford", "02155"), ("Natick", "01760"), ("Needham", "02492"),
    ("Newton", "02458"), ("Quincy", "02169"), ("Revere", "02151"), ("Salem", "01970"), ("Somerville", "02143"),
    ("Waltham", "02453"), ("Watertown", "02472"), ("Winchester", "01890"), ("Woburn", "01801"), ("Worcester", "01608"),
];

/// Streets, which every town has.
pub(crate) const STREETS: &[&str] = &[
    "Chestnut Street", "Church Street", "Elm Street", "Franklin Avenue", "Grove Street", "High Street", "Highland Avenue",
    "Lake Road", "Lincoln Street", "Main Street", "Maple Avenue", "Mill Road", "Oak Street", "Park Avenue",
    "Pleasant Street", "Prospect Street", "River Road", "School Street", "Summer Street", "Walnut Street",
    "Washington Street", "Winter Street",
];
