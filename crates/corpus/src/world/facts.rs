//! The world itself: who and what there is, and what is true of it.
//!
//! Every relation is a function: an entity has at most one mother, employer, region, ... so that every question has one
//! answer. What is true is what some passage says: a fact that is left out of a passage is left out of the world.
use super::names::{self, person_name, two_part_names};
use super::random::Random;
use std::collections::HashSet;

/// The position of an entity in [`Facts::entities`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntityIdx(pub(crate) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Woman,
    Man,
    City,
    Region,
    Company,
    Book,
    Film,
    Song,
}

/// The relations, each from one kind of entity to one kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Relation {
    // of people
    Mother,
    Father,
    Spouse,
    Employer,
    Job,
    Birthplace,
    BirthYear,
    // of companies
    Founder,
    Boss,
    Headquarters,
    // of companies, cities and regions
    FoundingYear,
    // of cities
    Mayor,
    Region,
    // of regions
    Capital,
    Governor,
    // of books, films and songs: author, director, singer
    Creator,
    ReleaseYear,
    // of books and films
    Setting,
    // of songs
    Label,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Entity(EntityIdx),
    Year(u16),
    Job(&'static str),
}

pub(crate) struct Entity {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// At most one for each relation, in a fixed order.
    pub(crate) facts: Vec<(Relation, Value)>,
}

pub(crate) struct Facts {
    pub(crate) entities: Vec<Entity>,
}

/// How many entities of each kind a world has. Ratios to people: one city to 10, one region to 25, one company to 6, one
/// work to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) n_people: usize,
    pub(crate) n_cities: usize,
    pub(crate) n_regions: usize,
    pub(crate) n_companies: usize,
    pub(crate) n_works: usize,
}

/// The most people whose world the lists of names can name.
pub(crate) const MAX_PEOPLE: usize = 5000;
/// The fewest people that make a world.
pub(crate) const MIN_PEOPLE: usize = 40;
/// A person's passage says at most this much.
const MAX_PERSON_FACTS: usize = 5;
const LAST_BIRTH: u16 = 2000;
const LAST_YEAR: u16 = 2020;

impl Sizes {
    pub(crate) fn new(n_people: usize) -> Self {
        let [n_cities, n_regions] = [n_people / 10, n_people / 25].map(|n| n.max(4));
        Self { n_people, n_cities, n_regions, n_companies: n_people / 6, n_works: n_people / 4 }
    }
}

impl Kind {
    pub(crate) fn is_person(self) -> bool {
        matches!(self, Self::Woman | Self::Man)
    }
}

impl Facts {
    pub(crate) fn generate(n_people: usize, random: &mut Random) -> Self {
        let sizes = Sizes::new(n_people);
        let places = Places { sizes };
        let mut people = families(sizes.n_people, random);
        let works = works(sizes, &people, random);
        let mut companies = companies(sizes, &people, random);
        let mut leaders = Leaders::new(&people, random);
        let mut cities = cities(sizes, places, &mut leaders, random);
        let mut regions = regions(sizes, places, &mut leaders, random);
        for (company_idx, company) in companies.iter_mut().enumerate() {
            let boss = leaders.next();
            people[boss.0 as usize].employer = Some(places.company(company_idx));
            company.facts.push((Relation::Boss, Value::Entity(boss)));
            company.facts.push((Relation::Headquarters, Value::Entity(places.city(random.below(sizes.n_cities)))));
        }
        // Six in ten have an employer, and every boss; the others have a job.
        for person in &mut people {
            if random.chance(60) && person.employer.is_none() {
                person.employer = Some(places.company(random.below(sizes.n_companies)));
            }
        }
        let mut entities: Vec<_> = people
            .into_iter()
            .map(|person| {
                let birthplace = places.city(random.below(sizes.n_cities));
                person.into_entity(birthplace, random)
            })
            .collect();
        entities.append(&mut cities);
        entities.append(&mut regions);
        let founded: Vec<_> = companies.iter().map(|company| company.year()).collect();
        entities.append(&mut companies);
        entities.extend(works.into_iter().map(|mut work| {
            let elder: Vec<_> = (0..founded.len()).filter(|&idx| founded[idx] <= work.year()).collect();
            let last = match work.kind {
                // A label is older than its songs; before the first label there are none.
                Kind::Song if !elder.is_empty() => (Relation::Label, places.company(random.pick(&elder))),
                Kind::Song => {
                    work.kind = Kind::Book;
                    (Relation::Setting, places.city(random.below(sizes.n_cities)))
                }
                _ => (Relation::Setting, places.city(random.below(sizes.n_cities))),
            };
            work.facts.push((last.0, Value::Entity(last.1)));
            work
        }));
        Self { entities }
    }

    pub(crate) fn get(&self, entity: EntityIdx) -> &Entity {
        &self.entities[entity.0 as usize]
    }

    pub(crate) fn value(&self, entity: EntityIdx, relation: Relation) -> Option<Value> {
        self.get(entity).value(relation)
    }

    /// A value as passages and answers write it.
    pub(crate) fn text(&self, value: Value) -> String {
        match value {
            Value::Entity(entity) => self.get(entity).name.clone(),
            Value::Year(year) => year.to_string(),
            Value::Job(job) => job.to_owned(),
        }
    }

    pub(crate) fn indices(&self) -> impl Iterator<Item = EntityIdx> + use<> {
        (0..self.entities.len() as u32).map(EntityIdx)
    }
}

impl Entity {
    pub(crate) fn value(&self, relation: Relation) -> Option<Value> {
        self.facts.iter().find(|(known, _)| *known == relation).map(|&(_, value)| value)
    }

    fn year(&self) -> u16 {
        let years =
            self.facts.iter().find_map(|&(_, value)| if let Value::Year(year) = value { Some(year) } else { None });
        years.expect("the entity has a year")
    }
}

/// Where the kinds stand in the list of entities: people, cities, regions, companies, works.
#[derive(Clone, Copy)]
struct Places {
    sizes: Sizes,
}

impl Places {
    fn city(self, city_idx: usize) -> EntityIdx {
        EntityIdx((self.sizes.n_people + city_idx) as u32)
    }

    fn region(self, region_idx: usize) -> EntityIdx {
        EntityIdx((self.sizes.n_people + self.sizes.n_cities + region_idx) as u32)
    }

    fn company(self, company_idx: usize) -> EntityIdx {
        EntityIdx((self.sizes.n_people + self.sizes.n_cities + self.sizes.n_regions + company_idx) as u32)
    }
}

struct Person {
    name: String,
    kind: Kind,
    birth_year: u16,
    parents: Option<(EntityIdx, EntityIdx)>,
    spouse: Option<EntityIdx>,
    employer: Option<EntityIdx>,
}

/// Mother and father.
struct Couple {
    mother: EntityIdx,
    father: EntityIdx,
    n_children: u32,
}

/// People in families. Children come behind their parents in the list, so no one is their own ancestor; parents are at
/// least 18 years older than their child, mothers at most 40.
fn families(n_people: usize, random: &mut Random) -> Vec<Person> {
    let mut taken = HashSet::new();
    let mut born = |kind, birth_year, parents, random: &mut Random| {
        let first_names = if kind == Kind::Woman { &names::FEMALE } else { &names::MALE };
        let name = person_name(first_names, &mut taken, random);
        Person { name, kind, birth_year, parents, spouse: None, employer: None }
    };
    let mut people: Vec<Person> = Vec::with_capacity(n_people);
    let mut couples = Vec::new();
    for _ in 0..n_people * 3 / 20 {
        let (mother, father) = (EntityIdx(people.len() as u32), EntityIdx(people.len() as u32 + 1));
        let year = random.between(1905, 1935);
        people.push(born(Kind::Woman, year, None, random));
        people.push(born(Kind::Man, year - random.between(0, 5), None, random));
        marry(&mut people, &mut couples, mother, father);
    }
    while people.len() < n_people {
        // Newcomers without parents keep the families from dying out.
        if couples.is_empty() || random.chance(10) {
            let kind = random.pick(&[Kind::Woman, Kind::Man]);
            people.push(born(kind, random.between(1930, 1970), None, random));
        } else {
            let couple_idx = random.below(couples.len());
            let Couple { mother, father, n_children } = &mut couples[couple_idx];
            let (mother, father) = (*mother, *father);
            *n_children += 1;
            let is_last = *n_children == 3;
            let [mother_year, father_year] = [mother, father].map(|it| people[it.0 as usize].birth_year);
            let year = random.between(mother_year.max(father_year) + 18, LAST_BIRTH.min(mother_year + 40));
            people.push(born(random.pick(&[Kind::Woman, Kind::Man]), year, Some((mother, father)), random));
            if is_last {
                couples.swap_remove(couple_idx);
            }
        }
        if random.chance(65) {
            let newcomer = EntityIdx(people.len() as u32 - 1);
            find_spouse(&mut people, &mut couples, newcomer, random);
        }
    }
    people
}

fn find_spouse(people: &mut [Person], couples: &mut Vec<Couple>, newcomer: EntityIdx, random: &mut Random) {
    let person = &people[newcomer.0 as usize];
    let suits = |other: &Person| {
        other.spouse.is_none()
            && other.kind != person.kind
            && other.birth_year.abs_diff(person.birth_year) <= 8
            && (other.parents.is_none() || other.parents != person.parents)
    };
    let suitors: Vec<_> = (0..newcomer.0).filter(|&idx| suits(&people[idx as usize])).map(EntityIdx).collect();
    if suitors.is_empty() {
        return;
    }
    let spouse = random.pick(&suitors);
    let is_woman = person.kind == Kind::Woman;
    let (mother, father) = if is_woman { (newcomer, spouse) } else { (spouse, newcomer) };
    marry(people, couples, mother, father);
}

/// A couple too young for a child by the year of the last birth stays without.
fn marry(people: &mut [Person], couples: &mut Vec<Couple>, mother: EntityIdx, father: EntityIdx) {
    people[mother.0 as usize].spouse = Some(father);
    people[father.0 as usize].spouse = Some(mother);
    let [mother_year, father_year] = [mother, father].map(|it| people[it.0 as usize].birth_year);
    if mother_year.max(father_year) + 18 <= LAST_BIRTH {
        couples.push(Couple { mother, father, n_children: 0 });
    }
}

impl Person {
    fn into_entity(self, birthplace: EntityIdx, random: &mut Random) -> Entity {
        let work = match self.employer {
            Some(employer) => (Relation::Employer, Value::Entity(employer)),
            None => (Relation::Job, Value::Job(random.pick(&names::JOBS))),
        };
        let mut facts = vec![
            (Relation::Birthplace, Value::Entity(birthplace)),
            (Relation::BirthYear, Value::Year(self.birth_year)),
            work,
        ];
        if let Some((mother, father)) = self.parents {
            facts.push((Relation::Mother, Value::Entity(mother)));
            facts.push((Relation::Father, Value::Entity(father)));
        }
        if let Some(spouse) = self.spouse {
            facts.push((Relation::Spouse, Value::Entity(spouse)));
        }
        while facts.len() > MAX_PERSON_FACTS {
            // Birthplace and employer stay: "who was born in X and works for Y" must not have a silent second answer.
            let fact_idx = 1 + random.below(facts.len() - 1);
            if facts[fact_idx].0 != Relation::Employer {
                facts.remove(fact_idx);
            }
        }
        Entity { name: self.name, kind: self.kind, facts }
    }
}

/// Books, films and songs, without setting or label yet.
fn works(sizes: Sizes, people: &[Person], random: &mut Random) -> Vec<Entity> {
    let names = two_part_names(names::WORKS, sizes.n_works, random);
    let made = names.into_iter().map(|name| {
        let (creator, year) = someone_of_age(people, random);
        let kind = random.pick(&[Kind::Book, Kind::Film, Kind::Song]);
        Entity { name, kind, facts: vec![(Relation::Creator, Value::Entity(creator)), (Relation::ReleaseYear, year)] }
    });
    made.collect()
}

/// Companies with founder and founding year only.
fn companies(sizes: Sizes, people: &[Person], random: &mut Random) -> Vec<Entity> {
    let names = two_part_names(names::COMPANIES, sizes.n_companies, random);
    let founded = names.into_iter().map(|name| {
        let (founder, year) = someone_of_age(people, random);
        let facts = vec![(Relation::Founder, Value::Entity(founder)), (Relation::FoundingYear, year)];
        Entity { name, kind: Kind::Company, facts }
    });
    founded.collect()
}

/// Someone, and a year in which they were 20 to 50 years old.
fn someone_of_age(people: &[Person], random: &mut Random) -> (EntityIdx, Value) {
    let person = random.below(people.len());
    let birth_year = people[person].birth_year;
    let year = random.between(birth_year + 20, (birth_year + 50).min(LAST_YEAR));
    (EntityIdx(person as u32), Value::Year(year))
}

/// The younger half of the people in random order, each once before anyone twice: who holds an office today.
struct Leaders {
    candidates: Vec<EntityIdx>,
    n_drawn: usize,
}

impl Leaders {
    fn new(people: &[Person], random: &mut Random) -> Self {
        let mut candidates: Vec<_> = (0..people.len() as u32).map(EntityIdx).collect();
        candidates.sort_by_key(|it| (std::cmp::Reverse(people[it.0 as usize].birth_year), *it));
        candidates.truncate(people.len() / 2);
        random.shuffle(&mut candidates);
        Self { candidates, n_drawn: 0 }
    }

    fn next(&mut self) -> EntityIdx {
        self.n_drawn += 1;
        self.candidates[(self.n_drawn - 1) % self.candidates.len()]
    }
}

/// Cities; the first ones are the capitals, one a region.
fn cities(sizes: Sizes, places: Places, leaders: &mut Leaders, random: &mut Random) -> Vec<Entity> {
    let names = two_part_names(names::CITIES, sizes.n_cities, random);
    let built = names.into_iter().enumerate().map(|(city_idx, name)| {
        let region_idx = if city_idx < sizes.n_regions { city_idx } else { random.below(sizes.n_regions) };
        let facts = vec![
            (Relation::Region, Value::Entity(places.region(region_idx))),
            (Relation::Mayor, Value::Entity(leaders.next())),
            (Relation::FoundingYear, Value::Year(random.between(1700, 1880))),
        ];
        Entity { name, kind: Kind::City, facts }
    });
    built.collect()
}

fn regions(sizes: Sizes, places: Places, leaders: &mut Leaders, random: &mut Random) -> Vec<Entity> {
    let names = two_part_names(names::REGIONS, sizes.n_regions, random);
    let settled = names.into_iter().enumerate().map(|(region_idx, name)| {
        let facts = vec![
            (Relation::Capital, Value::Entity(places.city(region_idx))),
            (Relation::Governor, Value::Entity(leaders.next())),
            (Relation::FoundingYear, Value::Year(random.between(1500, 1690))),
        ];
        Entity { name, kind: Kind::Region, facts }
    });
    settled.collect()
}
