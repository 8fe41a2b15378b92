//! The faults of a random plan, chosen among families that are switched on and off per seed.
//!
//! Swarm testing: a plan in which everything goes wrong at once mostly tests that nothing works.
//! So each seed has some families only, each with its own weight, and an overall intensity from
//! calm to storm. Faults also cluster in time: many strike within milliseconds of another event,
//! because that is where the bugs are.

use stormkv::types::NodeId;

use crate::plan::{Fault, FaultRow, Member, ServiceFault, Who};
use crate::service::CustomFault;

use super::combos;
use super::dice::{Dice, Purpose};
use super::families::{clock, damage, disk, link, process};
use super::knobs::{Knobs, Mix};

/// The most faults of a random plan.
const MOST_FAULTS: usize = 25;

/// Share of the plans with disk errors that are aimed, in percent.
const AIMED_PERCENT: u32 = 15;
/// Share of the plans in which a proposal is displaced on purpose, in percent.
const DISPLACED_PERCENT: u32 = 6;

/// A family of faults.
///
/// Its name is the key of its streams of draws. A family that is added, removed or put elsewhere in the
/// list changes no draw of another one.
#[derive(Clone, Copy)]
pub(super) struct Family {
    name: &'static str,
    least_nodes: usize,
    /// Several faults in a sequence, see [`combos`]; otherwise each fault stands for itself.
    is_story: bool,
    act: Act,
}

/// What a family does.
#[derive(Clone, Copy)]
enum Act {
    /// Draws one fault, or several that belong together.
    Draw(fn(&mut Scene<'_>)),
    /// Draws a fault of the service.
    Custom(&'static dyn CustomFault),
}

impl Act {
    fn draw(self, scene: &mut Scene<'_>) {
        match self {
            Act::Draw(draw) => draw(scene),
            Act::Custom(fault) => {
                let who = scene.who();
                let fault = ServiceFault::new(fault.name(), &fault.draw(scene.dice));
                scene.push_lasting(Fault::Service(who, fault));
            }
        }
    }
}

const fn plain(name: &'static str, least_nodes: usize, draw: fn(&mut Scene<'_>)) -> Family {
    Family { name, least_nodes, is_story: false, act: Act::Draw(draw) }
}

const fn story(name: &'static str, least_nodes: usize, draw: fn(&mut Scene<'_>)) -> Family {
    Family { name, least_nodes, is_story: true, act: Act::Draw(draw) }
}

/// The family of a plan in which no other one is on.
const CRASH: Family = plain("crash", 1, process::crash);

/// The families, each with the least number of nodes that it needs.
const FAMILIES: &[Family] = &[
    CRASH,
    plain("crash-at-step", 1, process::crash_at_step),
    plain("crash-all", 1, process::crash_all),
    plain("kill", 1, process::kill),
    plain("pause", 1, process::pause),
    plain("partition", 2, link::partition),
    plain("isolate", 2, link::isolate),
    plain("one-way", 2, link::one_way),
    plain("bridge", 3, link::bridge),
    plain("clog", 2, link::clog),
    plain("weather", 1, link::weather),
    plain("fsync-failure", 1, disk::fsync_failure),
    plain("disk-error", 1, disk::disk_error),
    plain("slow-disk", 1, disk::slow_disk),
    plain("lonely-clients", 1, link::lonely_clients),
    story("deposed-leader", 3, combos::deposed_leader),
    story("double-crash", 1, combos::double_crash),
    story("snapshot-under-fire", 3, combos::snapshot_under_fire),
    story("flapping-link", 2, combos::flapping_link),
    story("rolling-crash", 2, combos::rolling_crash),
    story("leader-chase", 2, combos::leader_chase),
    story("majority-dies", 3, combos::majority_dies),
    story("unsynced-loss", 1, combos::unsynced_loss),
    story("swizzle-clog", 3, combos::swizzle_clog),
    story("stale-majority", 3, combos::stale_majority),
    plain("ring", 4, link::ring),
    plain("lag", 2, link::lag),
    plain("throttle", 2, link::throttle),
    plain("garble", 2, link::garble),
    plain("reset", 2, link::reset),
    plain("local-weather", 2, link::local_weather),
    plain("late-leader", 2, link::late_leader),
    story("broken-transfer", 3, combos::broken_transfer),
    story("damage-under-load", 2, combos::damage_under_load),
    story("ring-of-leaders", 5, combos::ring_of_leaders),
    plain("drift", 1, clock::drift),
    plain("drift-apart", 2, clock::drift_apart),
    plain("step", 1, clock::step),
    plain("jitter", 1, clock::jitter),
    plain("stop-the-world", 1, process::stop_the_world),
    plain("slow", 1, process::slow),
    plain("slow-apply", 1, process::slow_apply),
    plain("crash-loop", 1, process::crash_loop),
    story("rolling-upgrade", 2, combos::rolling_upgrade),
    story("wiped-member", 3, combos::wiped_member),
    plain("short-write", 1, disk::short_write),
    plain("stalled-disk", 1, disk::stalled_disk),
    plain("lost-entry", 1, disk::lost_entry),
    plain("rot-and-restart", 3, damage::rot_and_restart),
    plain("rot-and-rolling-restart", 3, damage::rot_and_rolling_restart),
    plain("rot-and-crash-all", 3, damage::rot_and_crash_all),
    plain("rotten-snapshot-is-needed", 3, damage::rotten_snapshot_is_needed),
    plain("misdirected-and-crash", 3, damage::misdirected_and_crash),
    plain("stale-read", 3, damage::stale_read),
    plain("damage-during-repair", 3, damage::damage_during_repair),
    story("late-mail", 3, combos::late_mail),
];

/// Who is there to be hit, and when something happens anyway.
pub(super) struct Cast {
    /// Every node that ever exists.
    pub nodes: Vec<NodeId>,
    /// Clients are 1 to this.
    pub clients: u32,
    /// Faults begin before this.
    pub horizon_us: u64,
    /// The longest election timeout.
    pub election_us: u64,
    /// When bursts of load and changes of membership begin.
    pub marks: Vec<u64>,
    /// Faults of the service.
    pub custom: &'static [&'static dyn CustomFault],
}

/// A family at work: its dice, the cast, and the faults so far.
pub(super) struct Scene<'a> {
    pub dice: &'a mut Dice,
    pub cast: &'a Cast,
    pub rows: &'a mut Vec<FaultRow>,
}

impl Scene<'_> {
    /// Adds a fault and returns when it is mended. One that waits for its moment gets some time to
    /// strike.
    pub fn push(&mut self, at_us: u64, until_us: u64, fault: impl Into<Fault>) -> u64 {
        let fault = fault.into();
        let until_us = match fault.waits() {
            true => until_us.max(at_us + self.dice.time_us(100, 700)),
            false => until_us,
        };
        self.rows.push(FaultRow { at_us, until_us: Some(until_us), fault });
        until_us
    }

    /// Adds a fault that is over as soon as it has struck.
    pub fn push_instant(&mut self, at_us: u64, fault: impl Into<Fault>) {
        self.rows.push(FaultRow { at_us, until_us: None, fault: fault.into() });
    }

    /// Adds a fault at some time that lasts for a while; rarely until the run heals.
    pub fn push_lasting(&mut self, fault: impl Into<Fault>) {
        let at_us = self.when();
        let until_us = at_us + self.span_us();
        self.push(at_us, until_us, fault);
        if self.dice.percent(5)
            && let Some(row) = self.rows.last_mut()
        {
            row.until_us = None;
        }
    }

    /// When something strikes: at any time, or a little after another event.
    pub fn when(&mut self) -> u64 {
        let choices = (self.rows.len() * 2 + self.cast.marks.len()) as u32;
        if choices > 0 && self.dice.percent(35) {
            let choice = self.dice.below(choices) as usize;
            let event_us = match self.rows.get(choice / 2) {
                Some(row) if choice.is_multiple_of(2) => row.at_us,
                Some(row) => row.until_us.unwrap_or(row.at_us),
                None => self.cast.marks[choice - 2 * self.rows.len()],
            };
            if event_us < self.cast.horizon_us {
                return event_us + u64::from(self.dice.scaled(1, 500)) * 100;
            }
        }
        self.dice.time_us(0, (self.cast.horizon_us / 1000) as u32)
    }

    /// How long something lasts: a blink, about as long as an election, or much longer.
    pub fn span_us(&mut self) -> u64 {
        match self.dice.below(10) {
            0..3 => self.dice.scaled_us(1, 100),
            3..8 => self.dice.time_us(100, 900),
            _ => self.dice.time_us(900, 3000),
        }
    }

    /// Long enough that the others elect a leader: two to five of the longest election timeouts.
    pub fn new_leader_us(&mut self) -> u64 {
        self.cast.election_us * u64::from(self.dice.between(20, 50)) / 10_000 * 1000
    }

    /// Any node.
    pub fn node(&mut self) -> NodeId {
        self.dice.pick(&self.cast.nodes)
    }

    /// Any node, often the leader.
    pub fn who(&mut self) -> Who {
        if self.dice.percent(30) { Who::Leader } else { Who::Node(self.node()) }
    }

    /// All nodes, in random order.
    pub fn shuffled(&mut self) -> Vec<Member> {
        let mut nodes: Vec<Member> = self.cast.nodes.iter().copied().map(Member::Node).collect();
        self.dice.shuffle(&mut nodes);
        nodes
    }

    /// The nodes in two groups, neither empty; some of the clients join one of them.
    pub fn halves(&mut self) -> (Vec<Member>, Vec<Member>) {
        let mut left = self.shuffled();
        let right_len = self.dice.between(1, left.len() as u32 - 1) as usize;
        let mut right = left.split_off(left.len() - right_len);
        left.sort_unstable();
        right.sort_unstable();
        if self.dice.percent(40) {
            for client in 1..=self.cast.clients {
                match self.dice.below(3) {
                    0 => left.push(Member::Client(client)),
                    1 => right.push(Member::Client(client)),
                    _ => {}
                }
            }
        }
        (left, right)
    }
}

/// Draws the faults of a plan, in order of time, and leaves out what is switched off.
pub(super) fn faults(seed: u64, cast: &Cast, knobs: &Knobs) -> Vec<FaultRow> {
    let custom = cast.custom.iter().map(|fault| Family {
        name: fault.name(),
        least_nodes: 1,
        is_story: false,
        act: Act::Custom(*fault),
    });
    faults_of(&FAMILIES.iter().copied().chain(custom).collect::<Vec<_>>(), seed, cast, knobs)
}

fn faults_of(families: &[Family], seed: u64, cast: &Cast, knobs: &Knobs) -> Vec<FaultRow> {
    let dice = &mut Dice::new(seed, Purpose::Intensity);
    let uniform = knobs.mix() == Mix::Uniform;
    let budget = match dice.weighted(&[(8, 0), (27, 1), (40, 2), (25, 3)]) {
        _ if uniform => dice.between(0, MOST_FAULTS as u32),
        0 => return Vec::new(),
        1 => dice.between(1, 4),
        2 => dice.between(5, 12),
        _ => dice.between(13, MOST_FAULTS as u32),
    };
    let share = dice.between(10, 60);
    let mut active = active(families, seed, cast, if uniform { None } else { Some(share) });
    let (mut rows, mut stories) = (Vec::new(), Vec::new());
    while rows.len() < budget as usize {
        let next = next(&mut active);
        let dice = &mut next.dice();
        next.family.act.draw(&mut Scene { dice, cast, rows: &mut rows });
        stories.resize(rows.len(), next.family.is_story);
    }
    rows.truncate(MOST_FAULTS);
    aim(seed, cast, &mut rows);
    stories.resize(rows.len(), false);
    displace(seed, cast, &mut rows);
    stories.resize(rows.len(), true);
    let drawn = rows.into_iter().zip(stories);
    let kept = drawn.filter(|(row, story)| knobs.keeps(row, *story));
    let mut rows: Vec<FaultRow> = kept.map(|(row, _)| row).collect();
    rows.sort_by_key(|row| row.at_us);
    rows
}

/// Adds disk errors that are aimed to some plans. They have a stream of draws for themselves, so that
/// the other faults of every seed stay as they are.
fn aim(seed: u64, cast: &Cast, rows: &mut Vec<FaultRow>) {
    let dice = &mut Dice::new(seed, Purpose::Aim);
    if dice.percent(AIMED_PERCENT) {
        for _ in 0..dice.between(1, 3) {
            disk::aimed_error(&mut Scene { dice, cast, rows });
        }
        rows.truncate(MOST_FAULTS);
    }
}

/// Displaces proposals in some plans, which independent faults almost never do. These have a stream of
/// draws for themselves, too.
fn displace(seed: u64, cast: &Cast, rows: &mut Vec<FaultRow>) {
    let dice = &mut Dice::new(seed, Purpose::Displaced);
    if dice.percent(DISPLACED_PERCENT) && cast.nodes.len() >= 3 && rows.len() + 3 <= MOST_FAULTS {
        combos::displaced_proposal(&mut Scene { dice, cast, rows });
    }
}

/// A family that is switched on.
struct Active {
    seed: u64,
    family: Family,
    weight: u32,
    tickets: Dice,
    acts: u32,
}

impl Active {
    /// Draws as many tickets as the family has weight, and returns the highest.
    fn ticket(&mut self) -> u32 {
        (0..self.weight).map(|_| self.tickets.below(u32::MAX)).max().unwrap_or(0)
    }

    /// The draws of its next act: a stream for each, so that an act that draws more than it used to does
    /// not change the following ones.
    fn dice(&mut self) -> Dice {
        self.acts += 1;
        Dice::family(self.seed, self.family.name, self.acts)
    }
}

/// Switches on this share of the families, in percent, each with a weight; without a share all of them,
/// with the same weight.
fn active(families: &[Family], seed: u64, cast: &Cast, share: Option<u32>) -> Vec<Active> {
    let fits = |family: &&Family| cast.nodes.len() >= family.least_nodes;
    let mut active = Vec::new();
    for family in families.iter().filter(fits) {
        let mut dice = Dice::family(seed, family.name, 0);
        let on = share.is_none_or(|share| dice.percent(share));
        let weight = if share.is_some() { dice.between(1, 5) } else { 1 };
        if on {
            active.push(Active { seed, family: *family, weight, tickets: dice, acts: 0 });
        }
    }
    if active.is_empty() {
        let tickets = Dice::family(seed, CRASH.name, 0);
        active.push(Active { seed, family: CRASH, weight: 1, tickets, acts: 0 });
    }
    active
}

/// The family that acts next: the one with the highest ticket.
///
/// Each is as likely as its weight says. Every family draws its tickets for itself, so that without one of
/// them only its own acts go to others.
fn next(active: &mut [Active]) -> &mut Active {
    let ranked = active.iter_mut().map(|active| (active.ticket(), active));
    let highest = ranked.max_by_key(|(ticket, active)| (*ticket, active.family.name));
    highest.expect("one family is on").1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast() -> Cast {
        Cast {
            nodes: (1..=5).map(NodeId).collect(),
            clients: 3,
            horizon_us: 8_000_000,
            election_us: 200_000,
            marks: vec![1_000_000],
            custom: &[],
        }
    }

    /// The families that act first in a plan, by name.
    fn order(families: &[Family], seed: u64) -> Vec<&'static str> {
        let mut active = active(families, seed, &cast(), Some(40));
        (0..20).map(|_| next(&mut active).family.name).collect()
    }

    #[test]
    fn families_have_different_names() {
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }

    #[test]
    fn family_removed_leaves_draws_of_others() {
        for removed in ["crash", "partition", "late-mail"] {
            let left: Vec<_> =
                FAMILIES.iter().copied().filter(|family| family.name != removed).collect();
            assert_eq!(left.len() + 1, FAMILIES.len());
            let mut acted = 0;
            for seed in 0..200 {
                let (all, without) = (order(FAMILIES, seed), order(&left, seed));
                for (before, after) in all.iter().zip(&without) {
                    assert!(before == after || *before == removed, "seed {seed}: {all:?}");
                }
                let acts = all.contains(&removed);
                acted += usize::from(acts);
                if !active(FAMILIES, seed, &cast(), Some(60))
                    .iter()
                    .any(|a| a.family.name == removed)
                {
                    // Off at the largest share, so it has no part in the plan.
                    let plan = |families| faults_of(families, seed, &cast(), &Knobs::default());
                    assert_eq!(plan(FAMILIES), plan(&left), "seed {seed}");
                }
            }
            assert!((10..190).contains(&acted), "{removed} acts in {acted} of 200 plans");
        }
    }

    #[test]
    fn families_in_another_order_draw_the_same() {
        let reversed: Vec<_> = FAMILIES.iter().rev().copied().collect();
        for seed in 0..200 {
            for knobs in [Knobs::default(), Knobs::mixed(Mix::Uniform)] {
                let plan = |families| faults_of(families, seed, &cast(), &knobs);
                assert_eq!(plan(FAMILIES), plan(&reversed), "seed {seed}");
            }
        }
    }
}
