//! Ways to choose the next plan of a campaign, to be compared with each other.
//!
//! - *swarm*: each seed draws which families of faults it has (`storm.rs`); what `run` does,
//! - *uniform*: each seed draws from all families alike,
//! - *priorities*: as in a swarm, but which message comes first is a matter of few changes of
//!   priority (`priorities.rs`), not of chance,
//! - *novelty*: a swarm to begin with; then also plans made from those that led the cluster into
//!   situations which none before had ([`Pictures`](crate::simulation::Pictures)).
//!
//! The first three are functions of a seed. The last is a function of the first seed and of what
//! was seen since, so it goes on from one run to the next.

use rustc_hash::FxHashSet;

use crate::plan::Plan;
use crate::rng::{Purpose, Stream};
use crate::service::Service;
use crate::swarm::{self, Knobs, Mix};

/// A way to choose plans. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the way of that name")]
pub enum Explorer {
    Swarm,
    Uniform,
    Priorities,
    Novelty,
}

impl Explorer {
    /// All of them; the first is what the others are compared with.
    pub const ALL: [Explorer; 4] =
        [Explorer::Swarm, Explorer::Uniform, Explorer::Priorities, Explorer::Novelty];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Explorer::Swarm => "swarm",
            Explorer::Uniform => "uniform",
            Explorer::Priorities => "priorities",
            Explorer::Novelty => "novelty",
        }
    }
}

/// The most plans that novelty goes on from. A new one takes the place of the oldest.
const MOST_PARENTS: usize = 256;
/// So many plans are fresh ones before any is made from another.
const FRESH_AT_FIRST: u64 = 20;
/// And so many of a hundred later on: what is there may be a dead end.
const FRESH_PERCENT: u64 = 40;

/// A campaign under way.
#[derive(Debug)]
pub struct Exploration {
    explorer: Explorer,
    next_seed: u64,
    plans: u64,
    chance: Stream,
    seen: FxHashSet<u64>,
    parents: Vec<Parent>,
    oldest: usize,
}

/// A plan that has shown something new.
#[derive(Debug)]
struct Parent {
    plan: Plan,
    /// How many new pictures its run had.
    news: u64,
    /// How many plans were made from it.
    children: u64,
}

impl Parent {
    /// How much it is worth to go on from here: less each time.
    fn weight(&self) -> u64 {
        self.news * 16 / (1 + self.children)
    }
}

impl Exploration {
    /// Begins one; the seeds of its plans are those from `first_seed` on.
    #[must_use]
    pub fn new(explorer: Explorer, first_seed: u64) -> Exploration {
        Exploration {
            explorer,
            next_seed: first_seed,
            plans: 0,
            chance: Stream::new(first_seed, Purpose::Exploration, []),
            seen: FxHashSet::default(),
            parents: Vec::new(),
            oldest: 0,
        }
    }

    /// The plan that is to be run next.
    pub fn next_plan<S: Service>(&mut self) -> Plan {
        self.plans += 1;
        let mix = match self.explorer {
            Explorer::Swarm => Mix::Swarm,
            Explorer::Uniform => Mix::Uniform,
            Explorer::Priorities => Mix::Priorities,
            Explorer::Novelty => return self.novel_plan::<S>(),
        };
        swarm::generate_with::<S>(self.fresh_seed(), &Knobs::mixed(mix))
    }

    /// Whether what is seen of a run matters for the plans that follow.
    #[must_use]
    pub fn learns(&self) -> bool {
        self.explorer == Explorer::Novelty
    }

    /// The run of this plan had these pictures.
    pub fn learn(&mut self, plan: Plan, pictures: &FxHashSet<u64>) {
        let before = self.seen.len();
        self.seen.extend(pictures);
        let news = (self.seen.len() - before) as u64;
        if news == 0 {
            return;
        }
        let parent = Parent { plan, news, children: 0 };
        if self.parents.len() < MOST_PARENTS {
            self.parents.push(parent);
        } else {
            self.parents[self.oldest] = parent;
            self.oldest = (self.oldest + 1) % MOST_PARENTS;
        }
    }

    fn fresh_seed(&mut self) -> u64 {
        self.next_seed += 1;
        self.next_seed - 1
    }

    fn novel_plan<S: Service>(&mut self) -> Plan {
        let seed = self.fresh_seed();
        let fresh = swarm::generate::<S>(seed);
        let begins = self.plans <= FRESH_AT_FIRST || self.chance.below(100) < FRESH_PERCENT;
        let weights: u64 = self.parents.iter().map(Parent::weight).sum();
        if begins || weights == 0 {
            return fresh;
        }
        let mut left = self.chance.below(weights);
        for parent in &mut self.parents {
            let weight = parent.weight();
            if left < weight {
                parent.children += 1;
                return swarm::mutate(&parent.plan, &fresh, seed);
            }
            left -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KeyValue;

    #[test]
    fn a_swarm_is_what_a_campaign_runs() {
        let mut exploration = Exploration::new(Explorer::Swarm, 7);
        let plans = [exploration.next_plan::<KeyValue>(), exploration.next_plan::<KeyValue>()];
        assert_eq!(plans, [swarm::generate::<KeyValue>(7), swarm::generate::<KeyValue>(8)]);
        assert!(!exploration.learns());
    }

    /// Runs nothing: the pictures of a plan are made up.
    fn explore(news_of: fn(u64) -> u64) -> Vec<Plan> {
        let mut exploration = Exploration::new(Explorer::Novelty, 0);
        let run = |number: u64| {
            let plan = exploration.next_plan::<KeyValue>();
            let pictures = (0..news_of(number)).map(|picture| number << 32 | picture);
            exploration.learn(plan.clone(), &pictures.collect());
            plan
        };
        (0..120).map(run).collect()
    }

    #[test]
    fn without_news_there_are_fresh_plans_only() {
        let plans = explore(|_| 0);
        assert!(
            plans.iter().zip(0..).all(|(plan, seed)| *plan == swarm::generate::<KeyValue>(seed))
        );
    }

    #[test]
    fn what_brought_news_is_gone_on_from_and_the_same_way_each_time() {
        let plans = explore(|number| if number == 3 { 1000 } else { 0 });
        assert_eq!(plans, explore(|number| if number == 3 { 1000 } else { 0 }));
        let children = plans.iter().filter(|plan| plan.name.ends_with("-from-3")).count();
        let fresh = plans
            .iter()
            .zip(0..)
            .filter(|(plan, seed)| **plan == swarm::generate::<KeyValue>(*seed));
        assert_eq!(children + fresh.count(), plans.len());
        assert!((40..80).contains(&children), "{children} of the last 100");
    }
}
