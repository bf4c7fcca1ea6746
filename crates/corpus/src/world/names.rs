//! The words that names are made of: common English ones, so that a name costs a language model about two tokens
//! (under GPT-2's vocabulary each word of a name is one).
//!
//! No word is in two lists and none is a word of the sentences, so that a search for a name finds its bearer
//! (a test holds them apart). Surnames do not run in families: nothing about a name can be guessed from another.
use super::random::Random;
use std::collections::HashSet;

#[rustfmt::skip]
pub(crate) const FEMALE: [&str; 60] = [
    "Mary", "Anna", "Emma", "Alice", "Jane", "Helen", "Laura", "Sarah", "Julia", "Karen", "Linda", "Susan", "Nancy",
    "Betty", "Carol", "Diana", "Ellen", "Fiona", "Grace", "Hannah", "Joan", "Judy", "Kate", "Lisa", "Maria", "Nina",
    "Olivia", "Paula", "Rachel", "Rita", "Ruth", "Sally", "Sandra", "Sophie", "Tina", "Vera", "Wendy", "Amy", "Barbara",
    "Clara", "Donna", "Eva", "Frances", "Gloria", "Jenny", "Lucy", "Molly", "Monica", "Naomi", "Nora", "Rebecca",
    "Rosa", "Stella", "Teresa", "Tracy", "Victoria", "Zoe", "Claire", "Martha", "Emily",
];
#[rustfmt::skip]
pub(crate) const MALE: [&str; 60] = [
    "James", "John", "Robert", "Michael", "William", "David", "Richard", "Joseph", "Thomas", "Charles", "Daniel",
    "Matthew", "Anthony", "Mark", "Paul", "Steven", "Andrew", "Kenneth", "George", "Joshua", "Kevin", "Brian", "Edward",
    "Ronald", "Timothy", "Jason", "Jeffrey", "Ryan", "Jacob", "Gary", "Nicholas", "Eric", "Jonathan", "Larry", "Justin",
    "Brandon", "Benjamin", "Samuel", "Frank", "Gregory", "Raymond", "Alexander", "Patrick", "Jack", "Dennis", "Jerry",
    "Tyler", "Aaron", "Henry", "Adam", "Peter", "Nathan", "Walter", "Kyle", "Carl", "Arthur", "Roger", "Simon", "Louis",
    "Victor",
];
#[rustfmt::skip]
pub(crate) const SURNAMES: [&str; 100] = [
    "Stone", "Wood", "Hill", "Reed", "Brown", "Green", "White", "Black", "Gray", "Bell", "Ford", "Page", "Rice", "Price",
    "Lane", "Field", "Marsh", "Moore", "Lee", "Clark", "Hall", "Allen", "Wright", "Nelson", "Campbell", "Mitchell",
    "Parker", "Stewart", "Murphy", "Cooper", "Bailey", "Howard", "Ward", "Cox", "Watson", "Bennett", "Foster", "Perry",
    "Powell", "Sullivan", "Russell", "Griffin", "Hamilton", "Graham", "Wallace", "Cole", "Owen", "Grant", "Knight",
    "Hunt", "Palmer", "Hudson", "Dunn", "Payne", "Pierce", "Berry", "Arnold", "Ray", "Lawson", "Fuller", "Harrison",
    "Duncan", "Hart", "Bradley", "Lynch", "Oliver", "Gordon", "Sharp", "Burton", "Stanley", "Barrett", "Logan", "Hale",
    "Frost", "Pope", "Walsh", "Flint", "Fox", "Wolf", "Swan", "Bird", "Lamb", "Bond", "Rich", "Wise", "Strong", "Small",
    "Little", "Nash", "Webb", "Todd", "Norton", "Preston", "Wilson", "Johnson", "Jackson", "Thompson", "Anderson",
    "Taylor", "Newton",
];
#[rustfmt::skip]
pub(crate) const CITIES: [&[&str]; 2] = [
    &["Oak", "Pine", "Elm", "Ash", "Maple", "Cedar", "Birch", "Willow", "Apple", "Cherry", "Rose", "Lily", "Clover",
      "Fern", "Moss", "Honey", "Eagle", "Hawk", "Raven", "Falcon", "Deer", "Bear", "Fish", "Beaver", "Salmon", "Trout",
      "Goose", "Duck", "Robin", "Lion", "Tiger", "Horse", "Sheep", "Rabbit", "Turtle", "Lemon", "Olive", "Peach",
      "Plum", "Corn"],
    &["Bay", "Falls", "Creek", "Ridge", "Grove", "Harbor", "Springs", "Valley", "Beach", "Bridge", "Point", "Cross",
      "Gate", "Cove", "Haven", "Heights"],
];
#[rustfmt::skip]
pub(crate) const REGIONS: [&[&str]; 2] = [
    &["North", "South", "East", "West", "Upper", "Lower", "Great", "Old", "New", "High", "Far", "Outer", "Inner",
      "Middle", "Royal", "Grand"],
    &["Plain", "Coast", "Highland", "Moor", "Desert", "Island", "Shore", "Delta", "Prairie", "Basin", "Canyon",
      "Swamp", "Mesa", "Meadow"],
];
#[rustfmt::skip]
pub(crate) const COMPANIES: [&[&str]; 2] = [
    &["Blue", "Red", "Golden", "Silver", "Bright", "Rapid", "Solar", "Lunar", "Star", "Atlas", "Omega", "Alpha",
      "Prime", "Crown", "Summit", "Global", "Pacific", "Arctic", "Arrow", "Magic", "Beacon", "Compass", "Diamond",
      "Ruby", "Pearl", "Velvet", "Copper", "Iron", "Steel", "Carbon", "Laser", "Neon", "Pixel", "Quantum", "Turbo",
      "Vector"],
    &["Mill", "Bank", "Foods", "Motors", "Press", "Group", "Labs", "Media", "Energy", "Systems", "Tools", "Toys",
      "Paper", "Glass", "Records", "Studios", "Insurance", "Clothing", "Shoes", "Coffee", "Software", "Chemical",
      "Electric", "Airlines"],
];
#[rustfmt::skip]
pub(crate) const WORKS: [&[&str]; 2] = [
    &["The Silent", "The Broken", "The Hidden", "The Lost", "The Secret", "The Empty", "The Burning", "The Frozen",
      "The Dead", "The Dark", "The Gentle", "The Hollow", "The Endless", "The Final", "The Forgotten", "The Quiet",
      "The Lonely", "The Wild", "The Sleeping", "The Dancing", "The Falling", "The Rising", "The Running",
      "The Cold", "The Ancient", "The Modern", "The Perfect", "The Strange", "The Sacred", "The Savage",
      "The Scarlet", "The Purple", "The Yellow", "The Invisible", "The Midnight", "The Winter", "The Summer",
      "The Autumn"],
    &["Door", "Window", "Mirror", "Letter", "Garden", "Road", "Train", "Clock", "Candle", "Shadow", "Voice", "Storm",
      "Flame", "Sword", "Throne", "Castle", "Tower", "Forest", "River", "Ocean", "Mountain", "Sky", "Moon", "Dream",
      "Promise", "Stranger", "Thief", "Queen", "Prince", "Ghost", "Angel", "Dragon", "Piano", "Guitar", "Kitchen",
      "Ticket", "Map", "Key", "Ring", "Boat"],
];
#[rustfmt::skip]
pub(crate) const JOBS: [&str; 40] = [
    "baker", "butcher", "carpenter", "doctor", "nurse", "dentist", "teacher", "lawyer", "judge", "pilot", "sailor",
    "farmer", "painter", "sculptor", "plumber", "electrician", "engineer", "chemist", "biologist", "astronomer",
    "geologist", "historian", "librarian", "journalist", "photographer", "musician", "dancer", "tailor", "barber",
    "chef", "waiter", "gardener", "miner", "soldier", "detective", "architect", "accountant", "banker", "translator",
    "veterinarian",
];

/// Different names of two parts, in random order.
pub(crate) fn two_part_names(parts: [&[&str]; 2], n_names: usize, random: &mut Random) -> Vec<String> {
    let mut names: Vec<_> =
        parts[0].iter().flat_map(|first| parts[1].iter().map(move |second| format!("{first} {second}"))).collect();
    assert!(n_names <= names.len(), "the largest world fits the lists");
    random.shuffle(&mut names);
    names.truncate(n_names);
    names
}

/// A full name that nobody has yet.
pub(crate) fn person_name(first_names: &[&str], taken: &mut HashSet<String>, random: &mut Random) -> String {
    loop {
        let name = format!("{} {}", random.pick(first_names), random.pick(&SURNAMES));
        if taken.insert(name.clone()) {
            return name;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_in_two_names_of_different_kinds() {
        let mut seen = HashSet::new();
        let pairs = [CITIES, REGIONS, COMPANIES, WORKS].into_iter().flatten();
        let lists = pairs.chain([&FEMALE[..], &MALE, &SURNAMES, &JOBS]);
        for word in lists.flatten().map(|word| word.trim_start_matches("The ").to_lowercase()) {
            assert!(seen.insert(word.clone()), "{word} is there twice");
        }
    }

    #[test]
    fn surnames_take_a_plain_possessive() {
        assert!(SURNAMES.iter().all(|name| !name.ends_with('s')));
    }
}
