//! The faults of a random plan, chosen among families that are switched on and off per seed.
//!
//! Swarm testing: a plan in which everything goes wrong at once mostly tests that nothing works.
//! So each seed has some families only, each with its own weight, and an overall intensity from
//! calm to storm. Faults also cluster in time: many strike within milliseconds of another event,
//! because that is where the bugs are.

use stormkv::types::NodeId;

use crate::plan::{Fault, FaultRow, Member, Who};

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

/// Whether a family tells a story: see [`combos`].
const STORY: bool = true;
/// Its faults stand for themselves.
const PLAIN: bool = false;

/// The families, each with the least number of nodes it needs. New ones go to the end: a family's
/// position names its stream of draws.
const FAMILIES: &[(usize, bool, Family)] = &[
    (1, PLAIN, process::crash),
    (1, PLAIN, process::crash_at_step),
    (1, PLAIN, process::crash_all),
    (1, PLAIN, process::kill),
    (1, PLAIN, process::pause),
    (2, PLAIN, link::partition),
    (2, PLAIN, link::isolate),
    (2, PLAIN, link::one_way),
    (3, PLAIN, link::bridge),
    (2, PLAIN, link::clog),
    (1, PLAIN, link::weather),
    (1, PLAIN, disk::fsync_failure),
    (1, PLAIN, disk::disk_error),
    (1, PLAIN, disk::slow_disk),
    (1, PLAIN, link::lonely_clients),
    (3, STORY, combos::deposed_leader),
    (1, STORY, combos::double_crash),
    (3, STORY, combos::snapshot_under_fire),
    (2, STORY, combos::flapping_link),
    (2, STORY, combos::rolling_crash),
    (2, STORY, combos::leader_chase),
    (3, STORY, combos::majority_dies),
    (1, STORY, combos::unsynced_loss),
    (3, STORY, combos::swizzle_clog),
    (3, STORY, combos::stale_majority),
    (4, PLAIN, link::ring),
    (2, PLAIN, link::lag),
    (2, PLAIN, link::throttle),
    (2, PLAIN, link::garble),
    (2, PLAIN, link::reset),
    (2, PLAIN, link::local_weather),
    (2, PLAIN, link::late_leader),
    (3, STORY, combos::broken_transfer),
    (2, STORY, combos::damage_under_load),
    (5, STORY, combos::ring_of_leaders),
    (1, PLAIN, clock::drift),
    (2, PLAIN, clock::drift_apart),
    (1, PLAIN, clock::step),
    (1, PLAIN, clock::jitter),
    (1, PLAIN, process::stop_the_world),
    (1, PLAIN, process::slow),
    (1, PLAIN, process::slow_apply),
    (1, PLAIN, process::crash_loop),
    (2, STORY, combos::rolling_upgrade),
    (3, STORY, combos::wiped_member),
    (1, PLAIN, disk::short_write),
    (1, PLAIN, disk::stalled_disk),
    (1, PLAIN, disk::lost_entry),
    (3, PLAIN, damage::rot_and_restart),
    (3, PLAIN, damage::rot_and_rolling_restart),
    (3, PLAIN, damage::rot_and_crash_all),
    (3, PLAIN, damage::rotten_snapshot_is_needed),
    (3, PLAIN, damage::misdirected_and_crash),
    (3, PLAIN, damage::stale_read),
    (3, PLAIN, damage::damage_during_repair),
    (3, STORY, combos::late_mail),
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
}

/// Draws one fault, or several that belong together.
pub(super) type Family = fn(&mut Scene<'_>);

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
    let dice = &mut Dice::new(seed, Purpose::Intensity);
    let uniform = knobs.mix() == Mix::Uniform;
    let budget = match dice.weighted(&[(8, 0), (27, 1), (40, 2), (25, 3)]) {
        _ if uniform => dice.between(0, MOST_FAULTS as u32),
        0 => return Vec::new(),
        1 => dice.between(1, 4),
        2 => dice.between(5, 12),
        _ => dice.between(13, MOST_FAULTS as u32),
    };
    let mut playing = playing(seed, dice, cast, uniform);
    let weights: Vec<(u32, usize)> =
        playing.iter().enumerate().map(|(position, playing)| (playing.weight, position)).collect();
    let (mut rows, mut stories) = (Vec::new(), Vec::new());
    while rows.len() < budget as usize {
        let Playing { dice: family_dice, story, family, .. } =
            &mut playing[dice.weighted(&weights)];
        family(&mut Scene { dice: family_dice, cast, rows: &mut rows });
        stories.resize(rows.len(), *story);
    }
    rows.truncate(MOST_FAULTS);
    aim(seed, cast, &mut rows);
    stories.resize(rows.len(), PLAIN);
    displace(seed, cast, &mut rows);
    stories.resize(rows.len(), STORY);
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

/// A family that is switched on: its weight, and its own stream of draws.
struct Playing {
    weight: u32,
    dice: Dice,
    story: bool,
    family: Family,
}

/// Switches families on: all of them, with the same weight, if the choice is `uniform`.
fn playing(seed: u64, dice: &mut Dice, cast: &Cast, uniform: bool) -> Vec<Playing> {
    let share = dice.between(10, 60);
    let mut playing = Vec::new();
    for (position, (least_nodes, story, family)) in FAMILIES.iter().enumerate() {
        let on = dice.percent(share) || uniform;
        let weight = if uniform { 1 } else { dice.between(1, 5) };
        if on && cast.nodes.len() >= *least_nodes {
            let dice = Dice::family(seed, position);
            playing.push(Playing { weight, dice, story: *story, family: *family });
        }
    }
    if playing.is_empty() {
        let (_, story, family) = FAMILIES[0];
        playing.push(Playing { weight: 1, dice: Dice::family(seed, 0), story, family });
    }
    playing
}
