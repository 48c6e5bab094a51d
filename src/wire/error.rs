//! Why a message is none of ours, or cannot be read or written. Each text says what to do; topic and offset
//! are the caller's to add.

use super::SchemaId;
use crate::domain::stream::Stream;

/// See each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Something else writes to the topic.
    #[error("the record has no header `tickmint`: something else writes to this topic; give Tickmint topics of its own")]
    NoHeader,
    /// It is not what any version writes.
    #[error(
        "malformed {what}: {why}; if something else writes to this topic, give Tickmint topics of its own, else the record \
         is damaged"
    )]
    Malformed {
        /// Header or value.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A later version wrote it.
    #[error("{what} {found} is unknown to this version: a newer Tickmint wrote the record; run that version here, too")]
    Newer {
        /// What is new.
        what: &'static str,
        /// Its number or name.
        found: String,
    },
    /// It belongs into another topic.
    #[error("a record of `{found}` among those of `{wanted}`: give each stream a topic of its own")]
    OtherStream {
        /// What its header says.
        found: Stream,
        /// What is read or written here.
        wanted: Stream,
    },
    /// To be learned first: [`super::decode::Decoder::learn`].
    #[error("another version of the schema wrote the value, and it is not known yet: get schema {id} from the registry")]
    SchemaWanted {
        /// What to ask the registry for.
        id: SchemaId,
    },
    /// The two schemas cannot be resolved.
    #[error(
        "what {writer} wrote cannot be read with the schema of this version ({reason}): run the version that wrote it, or \
         start a new topic with the new schema"
    )]
    Breaking {
        /// The schema that it was written with.
        writer: String,
        /// What stands against it.
        reason: String,
    },
    /// Only a record that validation has let through can be written.
    #[error("a trade cannot be read again ({0}): this is a bug, tell us the text")]
    NoTrade(String),
}

impl WireError {
    /// The schema to get and to learn, before the same message is decoded again.
    pub fn wanted_schema(&self) -> Option<SchemaId> {
        match self {
            WireError::SchemaWanted { id } => Some(*id),
            WireError::NoHeader
            | WireError::Malformed { .. }
            | WireError::Newer { .. }
            | WireError::OtherStream { .. }
            | WireError::Breaking { .. }
            | WireError::NoTrade(_) => None,
        }
    }

    pub(super) fn value(why: &'static str) -> WireError {
        WireError::Malformed { what: "value", why }
    }

    pub(super) fn header(why: &'static str) -> WireError {
        WireError::Malformed { what: "header `tickmint`", why }
    }
}
