//! Labels that may be numbers or names of classes. Where digits could be both, all labels together decide, or nothing
//! does: a wrong guess would give every image the name of another class.

use std::collections::HashMap;

use crate::did_you_mean::nearest;

/// What labels of digits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digits {
    /// Numbers of classes, from 0, where there are as many classes; else names.
    Numbers,
    /// Names.
    Names,
}

/// Why it cannot be said what labels of digits are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undecided {
    /// A label that shows it.
    pub label: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

/// The classes, and what the labels so far say.
#[derive(Debug)]
pub(crate) struct LabelReadings {
    names: Vec<String>,
    /// `None`: several classes have the name.
    by_name: HashMap<String, Option<usize>>,
    /// The first label that is the number of a class, and the name of another.
    either: Option<String>,
    /// The first that is a number and no name.
    only_number: Option<String>,
    /// The first of digits that is a name and the number of no class, such as a year.
    only_name: Option<String>,
    /// The first name without a reading as a number.
    word: Option<String>,
}

impl LabelReadings {
    /// Classes with these names, by their numbers.
    pub(crate) fn new(names: &[String]) -> Self {
        let mut by_name = HashMap::new();
        for (number, name) in names.iter().enumerate() {
            by_name.entry(name.clone()).and_modify(|known| *known = None).or_insert(Some(number));
        }
        Self { names: names.to_vec(), by_name, either: None, only_number: None, only_name: None, word: None }
    }

    /// The names of the classes.
    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }

    /// Takes a label into account. A label that is the number of the class that has it for a name says nothing.
    pub(crate) fn note(&mut self, label: &str) {
        let is_name = self.by_name.contains_key(label);
        let first = match self.numbered(label) {
            Some(number) if self.names[number] == label => return,
            Some(_) if is_name => &mut self.either,
            Some(_) => &mut self.only_number,
            None if is_name && is_number(label) => &mut self.only_name,
            None if is_name => &mut self.word,
            None => return,
        };
        first.get_or_insert_with(|| label.to_owned());
    }

    /// What digits are, by all labels so far. A label that has one reading alone decides for those that have two.
    ///
    /// # Errors
    /// [`Undecided`] if no label decides, or if they contradict each other.
    pub(crate) fn digits(&self) -> Result<Digits, Undecided> {
        let is_name = self.only_name.is_some() || self.word.is_some();
        match (&self.either, &self.only_number) {
            (Some(_), None) if is_name => Ok(Digits::Names),
            (Some(_), Some(_)) if !is_name => Ok(Digits::Numbers),
            (Some(label), _) => Err(self.two_readings(label)),
            (None, Some(number)) => match &self.only_name {
                Some(name) => Err(Undecided {
                    label: number.clone(),
                    problem: format!(
                        "it can only be the number of a class, but the label `{name}` can only be a name; write all \
                         labels as numbers from 0, or all as names"
                    ),
                }),
                None => Ok(Digits::Numbers),
            },
            (None, None) => Ok(Digits::Numbers),
        }
    }

    /// As [`LabelReadings::digits`], where digits have been read as numbers already.
    ///
    /// # Errors
    /// Also [`Undecided`] if they are names.
    pub(crate) fn check_numbers(&self) -> Result<(), Undecided> {
        match (self.digits()?, &self.either) {
            (Digits::Names, Some(label)) => Err(self.two_readings(label)),
            _ => Ok(()),
        }
    }

    fn two_readings(&self, label: &str) -> Undecided {
        let by_number = self.numbered(label).map_or("", |number| &self.names[number]);
        let by_name = match self.by_name.get(label) {
            Some(Some(number)) => format!("class {number}"),
            _ => "several classes".to_owned(),
        };
        let problem = format!(
            "as a number, counted from 0, it is the class `{by_number}`, and as a name it is that of {by_name}; to \
             mean numbers, write class names that are no numbers (such as `no. {label}`); to mean names, write such \
             names as labels, too"
        );
        Undecided { label: label.to_owned(), problem }
    }

    /// The number of a label's class.
    ///
    /// # Errors
    /// What is wrong with the label.
    pub(crate) fn number(&self, label: &str, digits: Digits) -> Result<usize, String> {
        match self.class(label, digits) {
            Some(Some(number)) => Ok(number),
            Some(None) => Err("several classes have this name".to_owned()),
            None => Err(self.unknown(label)),
        }
    }

    /// The name of a label's class.
    ///
    /// # Errors
    /// What is wrong with the label.
    pub(crate) fn name(&self, label: &str, digits: Digits) -> Result<&str, String> {
        let named = || self.by_name.get_key_value(label).map(|(name, _)| name.as_str());
        let name = match self.class(label, digits) {
            Some(Some(number)) => Some(self.names[number].as_str()),
            Some(None) => named(),
            None => None,
        };
        name.ok_or_else(|| self.unknown(label))
    }

    /// `Some(None)`: several classes have this name.
    fn class(&self, label: &str, digits: Digits) -> Option<Option<usize>> {
        let by_name = || self.by_name.get(label).copied();
        let by_number = || self.numbered(label).map(Some);
        match digits {
            Digits::Numbers => by_number().or_else(by_name),
            Digits::Names => by_name().or_else(by_number),
        }
    }

    fn numbered(&self, label: &str) -> Option<usize> {
        label.parse().ok().filter(|&number| number < self.names.len())
    }

    fn unknown(&self, label: &str) -> String {
        let count = self.names.len();
        let Some(last) = count.checked_sub(1) else { return "the file of class names is empty".to_owned() };
        let near = nearest(label, self.names.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        format!("expected a number from 0 to {last}, or one of the {count} class names{near}")
    }
}

/// Whether a label is a whole number.
pub(crate) fn is_number(label: &str) -> bool {
    label.parse::<usize>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(names: &[&str], labels: &[&str]) -> LabelReadings {
        let mut readings = LabelReadings::new(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        labels.iter().for_each(|label| readings.note(label));
        readings
    }

    const SIZES: [&str; 6] = ["1", "2", "3", "4", "5", "6"];

    #[test]
    fn labels_with_one_reading_decide() {
        let digits = |names: &[&str], labels: &[&str]| readings(names, labels).digits().unwrap();
        assert_eq!(digits(&SIZES, &["1", "0", "2"]), Digits::Numbers);
        assert_eq!(digits(&SIZES, &["1", "6", "2"]), Digits::Names);
        assert_eq!(digits(&["1", "2", "ten"], &["1", "ten"]), Digits::Names);
        assert_eq!(digits(&["2001", "2002", "2"], &["2001", "2"]), Digits::Numbers, "2 is number 2");
        assert_eq!(digits(&["cat", "dog", "bee"], &["1", "bee", "0"]), Digits::Numbers);
        let years = readings(&["2001", "2002"], &["2002"]);
        assert_eq!((years.digits(), years.number("2002", Digits::Numbers)), (Ok(Digits::Numbers), Ok(1)));
    }

    #[test]
    fn nothing_is_guessed() {
        let undecided = |names: &[&str], labels: &[&str]| readings(names, labels).digits().unwrap_err();
        let Undecided { label, problem } = undecided(&SIZES, &["1", "2", "3"]);
        let expected = "as a number, counted from 0, it is the class `2`, and as a name it is that of class 0; to mean";
        assert!(label == "1" && problem.starts_with(expected), "{problem}");
        assert_eq!(undecided(&SIZES, &["3", "0", "6"]).label, "3");
        let Undecided { label, problem } = undecided(&["2001", "2002", "2003"], &["2003", "1"]);
        assert!(label == "1" && problem.contains("but the label `2003` can only be a name"), "{problem}");
        assert!(undecided(&["2", "2", "x"], &["2"]).problem.contains("that of several classes"));
    }

    #[test]
    fn numbers_that_were_read_are_checked() {
        assert_eq!(readings(&SIZES, &["1", "0"]).check_numbers(), Ok(()));
        assert_eq!(readings(&SIZES, &["1", "6"]).check_numbers().unwrap_err().label, "1");
    }
}
