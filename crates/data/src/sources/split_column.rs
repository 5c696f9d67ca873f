//! The split of a row, such as `train` or `val`: which rows are read.

use std::collections::BTreeMap;

use crate::sources::one_or_many::OneOrMany;

/// Column or key of the split.
pub(crate) const SPLIT: &str = "split";

/// Splits that a message lists.
const NAMED: usize = 10;

/// The splits to read, and those that were seen.
#[derive(Debug, Default)]
pub(crate) struct Splits {
    /// Empty: every split.
    pub(crate) wanted: Vec<String>,
    /// Number of rows by split.
    seen: BTreeMap<String, u64>,
}

impl Splits {
    /// These splits; none: every split.
    pub(crate) fn of(wanted: Vec<String>) -> Self {
        Self { wanted, seen: BTreeMap::new() }
    }

    /// The names in `written`: a list, or separated by `+`.
    ///
    /// # Errors
    /// A reason if a name is empty.
    pub(crate) fn parse(written: Option<&OneOrMany<String>>) -> Result<Self, String> {
        let written = written.into_iter().flat_map(|splits| &splits.0);
        let wanted: Vec<String> = written.flat_map(|it| it.split('+')).map(|split| split.trim().to_owned()).collect();
        if wanted.iter().any(String::is_empty) {
            let expected = "expected names of splits, or several with `+` between them, such as `train+restval`";
            return Err(format!("`split` has an empty name; {expected}"));
        }
        Ok(Self::of(wanted))
    }

    /// Whether a row of this split is read.
    pub(crate) fn takes(&mut self, split: &str) -> bool {
        match self.seen.get_mut(split) {
            Some(count) => *count += 1,
            None => {
                self.seen.insert(split.to_owned(), 1);
            }
        }
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == split)
    }

    /// Number of rows of splits that were not asked for.
    pub(crate) fn num_others(&self) -> u64 {
        self.others().map(|(_, count)| count).sum()
    }

    /// The splits that are left out, with their rows.
    fn others(&self) -> impl Iterator<Item = (&String, u64)> {
        let is_other = |split: &String| !self.wanted.is_empty() && !self.wanted.contains(split);
        self.seen.iter().filter(move |(split, _)| is_other(split)).map(|(split, count)| (split, *count))
    }

    /// A warning of splits that are left out, and would be read in other upper and lower case.
    fn other_case(&self) -> Option<String> {
        let folded: Vec<String> = self.wanted.iter().map(|split| split.to_lowercase()).collect();
        let alike: Vec<(&String, u64)> =
            self.others().filter(|(split, _)| folded.contains(&split.to_lowercase())).collect();
        let is_alike = |wanted: &&String| alike.iter().any(|(split, _)| split.to_lowercase() == wanted.to_lowercase());
        let meant: Vec<String> = self.wanted.iter().filter(is_alike).map(|split| format!("`{split}`")).collect();
        let named: Vec<String> = alike.iter().map(|(split, count)| format!("`{split}` ({count})")).collect();
        let all: Vec<String> =
            self.wanted.iter().chain(alike.iter().map(|(split, _)| *split)).map(|it| format!("\"{it}\"")).collect();
        let rows = match alike.iter().map(|(_, count)| count).sum() {
            1_u64 => "1 row is left out, since its split differs".to_owned(),
            count => format!("{count} rows are left out, since their split differs"),
        };
        (!alike.is_empty()).then(|| {
            format!(
                "{rows} from {} in upper and lower case: {}; to read them too, set `split = [{}]`, or correct their \
                 split",
                meant.join(" and "),
                named.join(", "),
                all.join(", ")
            )
        })
    }

    /// The splits that were asked for and are not there, with those that are; and a warning if all of several are used,
    /// or if one that is left out looks like one that was asked for.
    pub(crate) fn check(&self) -> Result<Option<String>, String> {
        let seen = || {
            let shown = self.seen.iter().take(NAMED).map(|(split, count)| format!("`{split}` ({count})"));
            let more = (self.seen.len() > NAMED).then(|| format!("{} more", self.seen.len() - NAMED));
            shown.chain(more).collect::<Vec<_>>().join(", ")
        };
        if let Some(absent) = self.wanted.iter().find(|split| !self.seen.contains_key(*split)) {
            return Err(format!("no row has the split `{absent}`; its splits are {}", seen()));
        }
        if !self.wanted.is_empty() {
            return Ok(self.other_case());
        }
        let is_mixed = self.seen.len() > 1;
        Ok(is_mixed.then(|| format!("the rows of all splits are used, {}; set `split` to choose", seen())))
    }
}
