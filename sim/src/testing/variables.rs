//! The environment variables of a swarm: which seeds, on how many threads.

use std::env::{self, VarError};
use std::num::NonZeroUsize;

use crate::campaign::{self, Seeds};

/// The variables as text; `None` for one that is not set.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    /// `STORM_SEED`
    seed: Option<String>,
    /// `STORM_SEEDS`
    seeds: Option<String>,
    /// `STORM_JOBS`
    jobs: Option<String>,
}

/// The seeds and threads of one swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// The seeds to run.
    pub seeds: Seeds,
    /// The number of threads, at least 1.
    pub jobs: usize,
    /// Whether `STORM_SEED` asks for one seed and nothing else.
    pub is_one: bool,
}

impl Variables {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// If a variable is not Unicode.
    pub fn read() -> Result<Variables, String> {
        let read = |name: &str| match env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(value)) => {
                Err(format!("{name}={} is not a number", value.display()))
            }
        };
        Ok(Variables {
            seed: read("STORM_SEED")?,
            seeds: read("STORM_SEEDS")?,
            jobs: read("STORM_JOBS")?,
        })
    }

    /// The seeds and threads that the variables ask for; `0..seeds` on all processors unless given.
    ///
    /// # Errors
    /// With one line that names the variable and the accepted values.
    pub fn choose(&self, seeds: u64) -> Result<Choice, String> {
        let chosen = match (&self.seed, &self.seeds) {
            (Some(_), Some(_)) => {
                return Err("set STORM_SEED or STORM_SEEDS, not both".to_string());
            }
            (Some(seed), None) => {
                let number = seed.parse().map_err(|_| {
                    let most = u64::MAX;
                    format!("STORM_SEED={seed} is not a seed: write a number from 0 to {most}")
                })?;
                Seeds::one(number)
            }
            (None, Some(seeds)) => {
                Seeds::parse(seeds).map_err(|reason| format!("STORM_SEEDS: {reason}"))?
            }
            (None, None) => Seeds::range(0, seeds)?,
        };
        let jobs = match &self.jobs {
            Some(jobs) => jobs.parse().map(NonZeroUsize::get).map_err(|_| {
                format!("STORM_JOBS={jobs} is not a number of threads: write 1 or more")
            })?,
            None => campaign::default_jobs(),
        };
        Ok(Choice { seeds: chosen, jobs, is_one: self.seed.is_some() })
    }
}

#[cfg(test)]
impl Variables {
    /// Variables that are set to these values.
    pub fn of(seed: Option<&str>, seeds: Option<&str>, jobs: Option<&str>) -> Variables {
        let [seed, seeds, jobs] = [seed, seeds, jobs].map(|value| value.map(str::to_string));
        Variables { seed, seeds, jobs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_choose_seeds_and_threads() {
        let chosen = |seed, seeds| Variables::of(seed, seeds, Some("3")).choose(400).unwrap();
        assert_eq!(chosen(None, None).seeds.to_string(), "0..400");
        assert_eq!(chosen(None, Some("7")).seeds.to_string(), "0..7");
        assert_eq!(chosen(None, Some("5..9")).seeds.to_string(), "5..9");
        assert_eq!(chosen(Some("42"), None).seeds.to_string(), "42");
        assert_eq!(chosen(None, None).jobs, 3);
        assert!(chosen(Some("42"), None).is_one && !chosen(None, Some("7")).is_one);
    }

    #[test]
    fn variables_refused_by_name() {
        for (seed, seeds, jobs, name) in [
            (Some("1"), Some("1"), None, "STORM_SEED or STORM_SEEDS"),
            (Some("one"), None, None, "STORM_SEED=one is not a seed"),
            (None, Some("9..5"), None, "STORM_SEEDS: 9..5"),
            (None, Some("0"), None, "STORM_SEEDS: 0 seeds"),
            (None, None, Some("0"), "STORM_JOBS=0 is not"),
        ] {
            let error = Variables::of(seed, seeds, jobs).choose(400).unwrap_err();
            assert!(error.contains(name) && error.lines().count() == 1, "{error}");
        }
        assert!(Variables::default().choose(0).is_err(), "no seeds would test nothing");
    }
}
