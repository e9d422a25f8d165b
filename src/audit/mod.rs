//! The records: what was asked, what was answered and what came of it, one JSON object a line, chained by hashes.
//!
//! `record` and `actions` are the schema, `line` is a record as it is written, `writer` appends, `head` signs with a
//! `key`, `run` keeps the directories that runs leave behind, `read` proves and reads a log, `entry`, `brief` and
//! `detail` are a record as it is read, `query` chooses among them, `tail` waits for more of it, `report` sums a run up,
//! `redact` keeps secrets out. `story` and `page` make of a log what people read, `ocsf` and `otlp` what other tools
//! read; `cursor` keeps how far a collector has taken it. Everything here runs in agentbox's own process, in the host's
//! view; nothing here decides, and nothing from inside the box reaches a terminal unescaped (`text`).

pub mod actions;
pub mod brief;
pub mod cursor;
pub mod detail;
pub mod entry;
pub mod head;
pub mod key;
mod line;
pub mod ocsf;
pub mod otlp;
pub mod page;
pub mod query;
pub mod read;
pub mod record;
pub mod redact;
pub mod report;
pub mod run;
pub mod story;
pub mod tail;
pub mod text;
pub mod writer;

pub use actions::ActionSum;
pub use record::{Counts, Decision, Destination, Head, Layer, Op, OpCount, Outcome, Party, PolicyRef, Record};
pub use record::{RunResult, Start};
pub use report::{Denial, Summary};
pub use run::{RunDir, RunFile, RunId};
pub use writer::{WriteError, Writer, Written};
