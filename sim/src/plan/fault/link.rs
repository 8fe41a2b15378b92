//! What can go wrong between two ends of a link.

use std::fmt;

use stormkv::types::NodeId;

use super::super::check::MAX_KIB_PER_S;
use super::super::grammar::{GrammarError, Tokens};
use super::super::units;
use super::{Fault, Kind, Member, Who, parse_who};

/// The links, each with its direction, that a fault hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// `A B -> C`: from each on the left to each on the right.
    Between {
        /// The senders.
        from: Vec<Member>,
        /// The receivers.
        to: Vec<Member>,
    },
    /// `N|leader|same -> all`: from this node to everyone.
    From(Who),
    /// `all -> N|leader|same`: from everyone to this node.
    To(Who),
    /// `all`: every link.
    All,
}

/// One thing that goes wrong on the network.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LinkFault {
    /// `partition A B | C D`: nothing passes between different groups. Who stands in no group
    /// reaches everyone.
    Partition(Vec<Vec<Member>>),
    /// `isolate N`: the node reaches no other node and no client.
    Isolate(Who),
    /// `oneway A -> B`: what the left send to the right is lost; the other direction works.
    OneWay {
        /// Whose messages are lost.
        from: Vec<Member>,
        /// On the way to whom.
        to: Vec<Member>,
    },
    /// `bridge N : A | B`: nothing passes between the two sides, but N reaches both.
    Bridge {
        /// Who reaches both sides.
        node: NodeId,
        /// One side.
        left: Vec<Member>,
        /// The other side.
        right: Vec<Member>,
    },
    /// `clog A -> B`: messages on this link are held back, and delivered at until.
    Clog {
        /// Who sends.
        from: Member,
        /// To whom.
        to: Member,
    },
    /// `ring A B C D`: the members stand in a circle, and each reaches only its two neighbours.
    Ring(Vec<NodeId>),
    /// `lag PATH delay_ms=T`: everything takes longer on these links.
    Lag {
        /// Which links.
        path: Path,
        /// How much longer, in microseconds.
        delay_us: u64,
    },
    /// `throttle PATH kib_per_s=N queue_ms=T`: each connection of these links carries only so much.
    /// What would wait for longer than T (500 by default) is dropped, and its sender told.
    Throttle {
        /// Which links.
        path: Path,
        /// What a connection carries, in KiB per second.
        kib_per_s: u32,
        /// How long a message may wait, in microseconds.
        queue_us: u64,
    },
    /// `garble PATH share=P`: the bytes of some messages between nodes are damaged. Who receives
    /// one must notice, and closes the connection.
    Garble {
        /// Which links.
        path: Path,
        /// The share of messages that are damaged, 0 to 1.
        share: f64,
    },
    /// `reset A | B`: all connections between the two sides break, in both directions; what is on
    /// them is lost, and both ends notice after a while.
    Reset {
        /// One side.
        left: Vec<Member>,
        /// The other side.
        right: Vec<Member>,
    },
    /// `reset N`: all connections of this node break, in both directions.
    ResetNode(Who),
    /// `weather [PATH] drop=P duplicate=P delay_ms=T`: these links (without a path: all) get worse,
    /// on top of the plan's rates.
    Weather {
        /// Which links.
        path: Path,
        /// The share of messages that are lost, 0 to 1.
        drop: f64,
        /// The share of messages that arrive twice, 0 to 1.
        duplicate: f64,
        /// What the mean latency grows by, in microseconds.
        delay_us: u64,
    },
}

/// The kinds of this family.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        verb: "partition",
        form: "partition MEMBER.. | MEMBER.. [| MEMBER..]",
        names: &["partition"],
        parse: |tokens| parse_partition(tokens).map(Fault::Link),
    },
    Kind {
        verb: "isolate",
        form: "isolate N|leader|same",
        names: &["isolate"],
        parse: |tokens| parse_isolate(tokens).map(Fault::Link),
    },
    Kind {
        verb: "oneway",
        form: "oneway MEMBER.. -> MEMBER..",
        names: &["oneway"],
        parse: |tokens| parse_oneway(tokens).map(Fault::Link),
    },
    Kind {
        verb: "bridge",
        form: "bridge N : MEMBER.. | MEMBER..",
        names: &["bridge"],
        parse: |tokens| parse_bridge(tokens).map(Fault::Link),
    },
    Kind {
        verb: "clog",
        form: "clog MEMBER -> MEMBER",
        names: &["clog"],
        parse: |tokens| parse_clog(tokens).map(Fault::Link),
    },
    Kind {
        verb: "weather",
        form: "weather [MEMBER..|leader|same|all -> MEMBER..|leader|same|all] [drop=0..1] \
               [duplicate=0..1] [delay_ms=T]",
        names: &["weather"],
        parse: |tokens| parse_weather(tokens).map(Fault::Link),
    },
    Kind {
        verb: "ring",
        form: "ring N N N N..",
        names: &["ring"],
        parse: |tokens| parse_ring(tokens).map(Fault::Link),
    },
    Kind {
        verb: "lag",
        form: "lag MEMBER..|leader|same|all -> MEMBER..|leader|same|all delay_ms=T",
        names: &["lag"],
        parse: |tokens| parse_lag(tokens).map(Fault::Link),
    },
    Kind {
        verb: "throttle",
        form: "throttle MEMBER..|leader|same|all -> MEMBER..|leader|same|all kib_per_s=N \
               [queue_ms=T]",
        names: &["throttle"],
        parse: |tokens| parse_throttle(tokens).map(Fault::Link),
    },
    Kind {
        verb: "garble",
        form: "garble MEMBER..|leader|same|all -> MEMBER..|leader|same|all share=0..1",
        names: &["garble"],
        parse: |tokens| parse_garble(tokens).map(Fault::Link),
    },
    Kind {
        verb: "reset",
        form: "reset N|leader|same` or `reset MEMBER.. | MEMBER..",
        names: &["reset"],
        parse: |tokens| parse_reset(tokens).map(Fault::Link),
    },
];

/// What a connection's queue holds if a `throttle` does not say, in microseconds.
const QUEUE_US: u64 = 500_000;

impl LinkFault {
    /// The name under which it is counted.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            LinkFault::Partition(_) => "partition",
            LinkFault::Isolate(_) => "isolate",
            LinkFault::OneWay { .. } => "oneway",
            LinkFault::Bridge { .. } => "bridge",
            LinkFault::Clog { .. } => "clog",
            LinkFault::Weather { .. } => "weather",
            LinkFault::Ring(_) => "ring",
            LinkFault::Lag { .. } => "lag",
            LinkFault::Throttle { .. } => "throttle",
            LinkFault::Garble { .. } => "garble",
            LinkFault::Reset { .. } | LinkFault::ResetNode(_) => "reset",
        }
    }

    /// The node it hits, if it hits just one.
    pub(super) fn who(&self) -> Option<Who> {
        match self {
            LinkFault::Isolate(who) | LinkFault::ResetNode(who) => Some(*who),
            _ => match self.path()? {
                Path::From(who) | Path::To(who) => Some(*who),
                Path::Between { .. } | Path::All => None,
            },
        }
    }

    /// The links that it hits, if it says so by a path.
    fn path(&self) -> Option<&Path> {
        match self {
            LinkFault::Lag { path, .. }
            | LinkFault::Throttle { path, .. }
            | LinkFault::Garble { path, .. }
            | LinkFault::Weather { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Every node and client that it names.
    pub(super) fn members(&self) -> Vec<Member> {
        match self {
            LinkFault::Partition(groups) => groups.concat(),
            LinkFault::OneWay { from, to } => [&from[..], &to[..]].concat(),
            LinkFault::Bridge { node, left, right } => {
                [&[Member::Node(*node)], &left[..], &right[..]].concat()
            }
            LinkFault::Clog { from, to } => vec![*from, *to],
            LinkFault::Ring(nodes) => nodes.iter().copied().map(Member::Node).collect(),
            LinkFault::Reset { left, right } => [&left[..], &right[..]].concat(),
            LinkFault::Isolate(_) | LinkFault::ResetNode(_) => Vec::new(),
            LinkFault::Lag { path, .. }
            | LinkFault::Throttle { path, .. }
            | LinkFault::Garble { path, .. }
            | LinkFault::Weather { path, .. } => match path {
                Path::Between { from, to } => [&from[..], &to[..]].concat(),
                Path::From(_) | Path::To(_) | Path::All => Vec::new(),
            },
        }
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkFault::Partition(groups) => {
                f.write_str("partition")?;
                for (position, group) in groups.iter().enumerate() {
                    f.write_str(if position == 0 { " " } else { " | " })?;
                    write_members(f, group)?;
                }
                Ok(())
            }
            LinkFault::Isolate(who) => write!(f, "isolate {who}"),
            LinkFault::OneWay { from, to } => {
                f.write_str("oneway ")?;
                write_members(f, from)?;
                f.write_str(" -> ")?;
                write_members(f, to)
            }
            LinkFault::Bridge { node, left, right } => {
                write!(f, "bridge {} : ", node.0)?;
                write_members(f, left)?;
                f.write_str(" | ")?;
                write_members(f, right)
            }
            LinkFault::Clog { from, to } => write!(f, "clog {from} -> {to}"),
            LinkFault::Ring(nodes) => {
                f.write_str("ring")?;
                nodes.iter().try_for_each(|node| write!(f, " {}", node.0))
            }
            LinkFault::Lag { path, delay_us } => {
                write!(f, "lag {path} delay_ms={}", units::show_ms(*delay_us))
            }
            LinkFault::Throttle { path, kib_per_s, queue_us } => {
                write!(f, "throttle {path} kib_per_s={kib_per_s}")?;
                match *queue_us {
                    QUEUE_US => Ok(()),
                    queue_us => write!(f, " queue_ms={}", units::show_ms(queue_us)),
                }
            }
            LinkFault::Garble { path, share } => write!(f, "garble {path} share={share}"),
            LinkFault::Reset { left, right } => {
                f.write_str("reset ")?;
                write_members(f, left)?;
                f.write_str(" | ")?;
                write_members(f, right)
            }
            LinkFault::ResetNode(who) => write!(f, "reset {who}"),
            LinkFault::Weather { path, drop, duplicate, delay_us } => {
                f.write_str("weather")?;
                if *path != Path::All {
                    write!(f, " {path}")?;
                }
                if *drop != 0.0 || (*duplicate == 0.0 && *delay_us == 0) {
                    write!(f, " drop={drop}")?;
                }
                if *duplicate != 0.0 {
                    write!(f, " duplicate={duplicate}")?;
                }
                if *delay_us != 0 {
                    write!(f, " delay_ms={}", units::show_ms(*delay_us))?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Between { from, to } => {
                write_members(f, from)?;
                f.write_str(" -> ")?;
                write_members(f, to)
            }
            Path::From(who) => write!(f, "{who} -> all"),
            Path::To(who) => write!(f, "all -> {who}"),
            Path::All => f.write_str("all"),
        }
    }
}

fn write_members(f: &mut fmt::Formatter<'_>, members: &[Member]) -> fmt::Result {
    for (position, member) in members.iter().enumerate() {
        let space = if position == 0 { "" } else { " " };
        write!(f, "{space}{member}")?;
    }
    Ok(())
}

fn parse_partition(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let mut groups = vec![tokens.members("|")?];
    tokens.expect("|")?;
    groups.push(tokens.members("|")?);
    while tokens.take_if("|") {
        groups.push(tokens.members("|")?);
    }
    apart(tokens, &groups.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    Ok(LinkFault::Partition(groups))
}

fn parse_isolate(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    parse_who(tokens).map(LinkFault::Isolate)
}

fn parse_oneway(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let from = tokens.members("->")?;
    tokens.expect("->")?;
    let to = tokens.members("")?;
    apart(tokens, &[&from, &to])?;
    Ok(LinkFault::OneWay { from, to })
}

fn parse_clog(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let from = tokens.member()?;
    tokens.expect("->")?;
    let to = tokens.member()?;
    apart(tokens, &[&[from], &[to]])?;
    Ok(LinkFault::Clog { from, to })
}

fn parse_bridge(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let node = tokens.node()?;
    tokens.expect(":")?;
    let left = tokens.members("|")?;
    tokens.expect("|")?;
    let right = tokens.members("")?;
    apart(tokens, &[&[Member::Node(node)], &left, &right])?;
    Ok(LinkFault::Bridge { node, left, right })
}

/// Nobody may stand in two groups.
fn apart(tokens: &Tokens<'_>, groups: &[&[Member]]) -> Result<(), GrammarError> {
    let mut seen = Vec::new();
    for member in groups.iter().copied().flatten() {
        if seen.contains(member) {
            return tokens.fail(format!("`{member}` stands in two groups"));
        }
        seen.push(*member);
    }
    Ok(())
}

fn parse_path(tokens: &mut Tokens<'_>) -> Result<Path, GrammarError> {
    if tokens.take_if("all") {
        if tokens.take_if("->") && !tokens.take_if("all") {
            return parse_who(tokens).map(Path::To);
        }
        return Ok(Path::All);
    }
    if matches!(tokens.peek(), Some("leader" | "same")) {
        let who = parse_who(tokens)?;
        tokens.expect("->")?;
        tokens.expect("all")?;
        return Ok(Path::From(who));
    }
    let from = tokens.members("->")?;
    tokens.expect("->")?;
    if tokens.take_if("all") {
        return match from[..] {
            [Member::Node(node)] => Ok(Path::From(Who::Node(node))),
            _ => tokens.fail("`all` is reached from more than one node"),
        };
    }
    let to = tokens.members("")?;
    apart(tokens, &[&from, &to])?;
    Ok(Path::Between { from, to })
}

/// Reads settings, `KEY=VALUE`, up to the end. There is at least one.
fn parse_settings<'a>(
    tokens: &mut Tokens<'a>,
    mut set: impl FnMut(&'a str, &'a str) -> Option<()>,
) -> Result<(), GrammarError> {
    let mut next = Some(tokens.need("a setting")?);
    while let Some(word) = next {
        if word.split_once('=').and_then(|(key, value)| set(key, value)).is_none() {
            return tokens.fail(format!("`{word}` is not a setting"));
        }
        next = tokens.take();
    }
    Ok(())
}

fn parse_share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
}

fn parse_weather(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let path = match tokens.peek() {
        Some(word) if !word.contains('=') => parse_path(tokens)?,
        _ => Path::All,
    };
    let (mut drop, mut duplicate, mut delay_us) = (0.0, 0.0, 0);
    parse_settings(tokens, |key, value| {
        match key {
            "drop" => drop = parse_share(value)?,
            "duplicate" => duplicate = parse_share(value)?,
            "delay_ms" => delay_us = units::parse_ms(value)?,
            _ => return None,
        }
        Some(())
    })?;
    Ok(LinkFault::Weather { path, drop, duplicate, delay_us })
}

fn parse_lag(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let path = parse_path(tokens)?;
    let mut delay_us = 0;
    parse_settings(tokens, |key, value| {
        delay_us = (key == "delay_ms").then(|| units::parse_ms(value))??;
        Some(())
    })?;
    Ok(LinkFault::Lag { path, delay_us })
}

fn parse_throttle(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let path = parse_path(tokens)?;
    let (mut kib_per_s, mut queue_us) = (None, QUEUE_US);
    let limits = 1..=MAX_KIB_PER_S;
    parse_settings(tokens, |key, value| {
        match key {
            "kib_per_s" => kib_per_s = Some(value.parse().ok().filter(|n| limits.contains(n))?),
            "queue_ms" => queue_us = units::parse_ms(value)?,
            _ => return None,
        }
        Some(())
    })?;
    match kib_per_s {
        Some(kib_per_s) => Ok(LinkFault::Throttle { path, kib_per_s, queue_us }),
        None => tokens.fail("`kib_per_s` is missing"),
    }
}

fn parse_garble(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let path = parse_path(tokens)?;
    let mut share = 0.0;
    parse_settings(tokens, |key, value| {
        share = (key == "share").then(|| parse_share(value))??;
        Some(())
    })?;
    Ok(LinkFault::Garble { path, share })
}

fn parse_ring(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    let mut nodes = Vec::new();
    while tokens.peek().is_some() {
        let node = tokens.node()?;
        if nodes.contains(&node) {
            return tokens.fail(format!("`{}` stands twice", node.0));
        }
        nodes.push(node);
    }
    match nodes.len() {
        4.. => Ok(LinkFault::Ring(nodes)),
        few => tokens.fail(format!("a ring of {few} keeps nobody apart")),
    }
}

fn parse_reset(tokens: &mut Tokens<'_>) -> Result<LinkFault, GrammarError> {
    if matches!(tokens.peek(), Some("leader" | "same")) {
        return parse_who(tokens).map(LinkFault::ResetNode);
    }
    let left = tokens.members("|")?;
    if let ([Member::Node(node)], None) = (&left[..], tokens.peek()) {
        return Ok(LinkFault::ResetNode(Who::Node(*node)));
    }
    tokens.expect("|")?;
    let right = tokens.members("")?;
    apart(tokens, &[&left, &right])?;
    Ok(LinkFault::Reset { left, right })
}
