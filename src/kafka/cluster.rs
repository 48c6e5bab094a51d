//! What is known of the topics: which incarnation, how many partitions. Looked at again every few seconds, since a topic
//! may be deleted and created again while we work.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::chain::ChainId;
use crate::domain::identity::LogId;
use crate::domain::per_chain::PerChain;
use crate::domain::stream::{PerStream, Stream};
use crate::io::kafka::KafkaError;
use crate::io::kafka::topics::{Described, TopicState, Topics};

/// How often the topics are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is known of the cluster.
#[derive(Clone, Default)]
pub struct Known {
    /// Asks it; none before it was reached.
    pub topics: Option<Topics>,
    /// Each topic; none: nothing is known of it yet, or it is missing.
    pub view: View,
}

/// What was last known of the cluster. A clone sees the same.
#[derive(Clone)]
pub struct Cluster(watch::Receiver<Known>);

impl Cluster {
    /// Knows what is sent there.
    pub fn new(known: watch::Receiver<Known>) -> Cluster {
        Cluster(known)
    }

    /// Asks the cluster; none before it was reached.
    pub fn topics(&self) -> Option<Topics> {
        self.0.borrow().topics.clone()
    }

    /// The topic of a stream; none while it is not there.
    pub fn topic(&self, stream: Stream) -> Option<Described> {
        self.0.borrow().view[stream.index()]
    }

    /// The incarnation of a stream's log.
    pub fn incarnation(&self, stream: Stream) -> Option<LogId> {
        self.topic(stream).map(|topic| topic.incarnation)
    }

    /// The incarnations of all logs, at one moment.
    pub fn incarnations(&self) -> PerStream<Option<LogId>> {
        self.0.borrow().view.map(|topic| topic.map(|topic| topic.incarnation))
    }

    /// How many partitions the topics have, the one with the most; none before anything is known.
    pub fn partitions(&self) -> Option<u32> {
        Stream::ALL.into_iter().filter_map(|stream| self.topic(stream)).map(|topic| topic.partitions).max()
    }

    /// The chains of all partitions that each topic has, and of each stream at least so many; none before anything is known.
    pub fn chains(&self, least: u32) -> Vec<ChainId> {
        let view = self.0.borrow().view;
        if view.iter().all(Option::is_none) {
            return Vec::new();
        }
        let partitions = |stream: Stream| view[stream.index()].map_or(0, |topic| topic.partitions).max(least);
        let of = |stream| (0..partitions(stream)).map(move |partition| ChainId { stream, partition });
        Stream::ALL.into_iter().flat_map(of).collect()
    }

    /// Resolves when something becomes another than it is now.
    pub async fn changed(&mut self) {
        self.0.mark_unchanged();
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What was answered last.
pub type View = PerStream<Option<Described>>;

/// Looks at the topics once, and tells what is new; which of them are missing. `before` is the last answer: a broker may lag
/// behind the others, so what is known of a topic changes only when it is told twice.
pub async fn look(topics: &Topics, known: &watch::Sender<Known>, before: &mut View) -> Result<Vec<Stream>, KafkaError> {
    let answer: View = topics.describe().await?.map(|state| match state {
        TopicState::There(topic) => Some(topic),
        TopicState::Missing => None,
    });
    let last = std::mem::replace(before, answer);
    known.send_if_modified(|known| {
        let is_reached = known.topics.replace(topics.clone()).is_none();
        let view = believed(known.view, last, answer);
        is_reached | (std::mem::replace(&mut known.view, view) != view)
    });
    let view = known.borrow().view;
    Ok(Stream::ALL.into_iter().filter(|stream| view[stream.index()].is_none()).collect())
}

/// What is known of each topic after an answer.
fn believed(known: View, last: View, answer: View) -> View {
    std::array::from_fn(|stream| {
        let (known, last, answer) = (known[stream], last[stream], answer[stream]);
        let is_same = |one: Option<Described>, other: Option<Described>| {
            one.map(|topic| (topic.incarnation, topic.partitions)) == other.map(|topic| (topic.incarnation, topic.partitions))
        };
        if known.is_none() || is_same(known, answer) || is_same(last, answer) { answer } else { known }
    })
}

/// Notes which incarnations the topics are now, and tells of one that was created anew since it was noted. A client that has worked
/// with the one before is not to be trusted with it.
pub(super) fn created_anew(noted: &mut PerStream<Option<LogId>>, now: &PerStream<Option<LogId>>) -> Option<Stream> {
    let is_anew = |stream: &Stream| {
        let (before, now) = (noted[stream.index()], now[stream.index()]);
        before.is_some() && now.is_some() && before != now
    };
    let anew = Stream::ALL.into_iter().find(is_anew);
    noted.iter_mut().zip(now).for_each(|(noted, now)| *noted = now.or(*noted));
    anew
}

/// Where the logs of all chains end now, and of which incarnation they are. Those that cannot be told are left out.
pub async fn ends(cluster: &Cluster) -> PerChain<Option<(LogId, u64)>> {
    let mut ends = PerChain::of(cluster.partitions().unwrap_or(1));
    let Some(topics) = cluster.topics() else { return ends };
    for stream in Stream::ALL {
        let Some(before) = cluster.topic(stream) else { continue };
        ends.widen(before.partitions); // there may be more since the first was asked for
        for partition in 0..before.partitions {
            if let Ok(found) = topics.watermarks(stream, partition).await {
                ends[ChainId { stream, partition }] = Some((before.incarnation, found.end));
            }
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_created_anew_where_it_is_another_than_before_and_not_where_it_is_away_or_first_seen() {
        let (old, new) = (Some(LogId::generate()), Some(LogId::generate()));
        let mut noted = PerStream::default();
        let mut tell = |now| created_anew(&mut noted, &[None, now, None]);
        assert_eq!([tell(old), tell(None), tell(old)], [None; 3]);
        assert_eq!([tell(new), tell(new)], [Some(Stream::ALL[1]), None], "it is told once");
    }

    #[test]
    fn what_is_known_changes_when_it_is_told_twice() {
        let of = |incarnation| Some(Described { incarnation, partitions: 4, leaderless: 0, in_sync: 3 });
        let (old, new) = (of(LogId::generate()), of(LogId::generate()));
        let view = |topic| [topic, old, None];
        assert_eq!(believed([None; 3], [None; 3], view(old)), view(old), "nothing was known");
        assert_eq!(believed(view(old), view(old), view(new)), view(old), "one broker says so");
        assert_eq!(believed(view(old), view(new), view(old)), view(old), "and another one does not");
        assert_eq!(believed(view(old), view(new), view(new)), view(new));
        assert_eq!(believed(view(old), view(old), view(None)), view(old));
        assert_eq!(believed(view(old), view(None), view(None)), view(None));
        let leaderless = old.map(|topic| Described { leaderless: 2, ..topic });
        assert_eq!(believed(view(old), view(old), view(leaderless)), view(leaderless), "it is the same topic");
    }
}
