//! The book of actions, without a gate around it.

use super::*;
use crate::event::{BoxPath, Exec, GitState, Reach};

const SESSION: ActionId = ActionId::SESSION;

fn id(number: u32) -> ActionId {
    ActionId::new(number)
}

/// A process of the session below these.
fn process(pid: i32, parents: &[i32]) -> Subject {
    Subject { pid, host: 1000 + pid, parents: parents.to_vec(), ..Subject::default() }
}

/// A process that a command of this action started.
fn of_action(action: u32, pid: i32) -> Subject {
    Subject { mark: id(action), ..process(pid, &[2, 1]) }
}

fn at(file: u64) -> Place {
    let path = BoxPath::new(format!("/work/{file}")).unwrap();
    let before = Some(Before { bytes: 10, git: Some(GitState::Untracked), held: false });
    Place { file: Some((1, file)), before, ..Place::of(path) }
}

fn file(op: FileOp, number: u64) -> Access {
    Access::File { op, at: at(number) }
}

fn exec(line: &[&str]) -> Access {
    let argv = line.iter().map(|word| word.to_string()).collect();
    Access::Exec(Exec::of(BoxPath::new(format!("/bin/{}", line[0])).unwrap(), line[0], argv))
}

fn weight(tier: u8) -> Weight {
    let (reach, reversibility) = (Reach::B1, Reversibility::R3);
    Weight { reach, reversibility, tier, place: Some(Where::Workspace), kind: Kind::Change, ..Weight::default() }
}

fn secret(label: &str) -> Weight {
    Weight { tier: 5, kind: Kind::SecretRead, secrets: [label].into(), ..Weight::default() }
}

impl Actions {
    /// The question with what the book knows of it.
    fn asked(&self, subject: &Subject, access: Access) -> Event {
        let mut event = Event::new(subject.clone().into(), access);
        self.prepare(&mut event, SESSION, None);
        event
    }

    /// Who does something to whom: the action, how that is known, and the others that it may belong to.
    fn attributed(&self, subject: &Subject) -> (ActionId, Attribution, Vec<ActionId>) {
        let standing = self.asked(subject, file(FileOp::Write, 1)).standing;
        (standing.action, standing.attribution, standing.shared)
    }

    fn tainted(&self, subject: &Subject) -> String {
        self.asked(subject, file(FileOp::Write, 1)).standing.taint.to_string()
    }

    /// The labels that a file is known by.
    fn labels(&self, number: u64) -> String {
        let Access::File { at, .. } = self.asked(&process(99, &[]), file(FileOp::Read, number)).access else {
            panic!()
        };
        at.labels.to_string()
    }

    /// Does it, with that weight.
    fn does(&mut self, subject: &Subject, access: Access, weight: &Weight) {
        let event = self.asked(subject, access);
        assert!(self.settled(&event, weight, None, Came::Done).is_none(), "nothing begins with this");
    }

    fn reads_secret(&mut self, subject: &Subject, label: &str) {
        self.does(subject, file(FileOp::Read, 500), &secret(label));
    }

    /// Writes into the file, as one that was there.
    fn writes(&mut self, subject: &Subject, number: u64) {
        self.does(subject, file(FileOp::Write, number), &weight(6));
    }

    /// Starts a command from a process of the session; gives its action, and whether that begins with it.
    fn command(&mut self, subject: &Subject, line: &[&str]) -> (ActionId, Option<Began>) {
        let action = self.for_command(subject).unwrap();
        let mut event = Event::new(subject.clone().into(), exec(line));
        self.prepare(&mut event, action, None);
        assert_eq!(event.standing.action, action);
        let began = match self.settled(&event, &Weight::default(), None, Came::Done) {
            Some(Record::Began(began)) => Some(*began),
            None => None,
            Some(_) => panic!("another record"),
        };
        (action, began)
    }

    fn begins(&mut self, subject: &Subject, tool: &str) -> ActionId {
        let claim = Claim { tool: Some(tool.into()), ..Claim::default() };
        let (action, record) = self.claim_begins(subject, claim.clone()).unwrap();
        let Record::Began(began) = record else { panic!("another record") };
        assert_eq!((began.action, began.attribution, began.claim), (action, Attribution::Bracket, Some(claim)));
        action
    }

    fn ends(&mut self, subject: &Subject, which: Option<ActionId>) -> Result<ActionId, String> {
        self.claim_ends(subject, which, Claim::default()).map(|(action, _)| action)
    }

    fn sum(&self, action: ActionId) -> ActionSum {
        self.sums().into_iter().find(|sum| sum.action == action).expect("it is in the book")
    }
}

#[test]
fn each_command_of_the_session_begins_an_action_of_its_own() {
    let mut book = Actions::default();
    let agent = process(2, &[1]);
    let (first, began) = book.command(&agent, &["rm", "-r", "x"]);
    let began = began.unwrap();
    assert_eq!((first, began.action, began.attribution), (id(1), id(1), Attribution::Subtree));
    assert_eq!((began.command, began.process.pid), (["rm", "-r", "x"].map(str::to_string).to_vec(), 2));
    assert_eq!(book.command(&agent, &["ls"]).0, id(2));
    // What the command does is its action's, and so is a program that it starts.
    assert_eq!(book.attributed(&of_action(1, 5)), (id(1), Attribution::Subtree, vec![]));
    book.does(&of_action(1, 5), exec(&["sh"]), &Weight::default());
    assert_eq!(book.sum(id(1)).effects.programs, 2);
    assert_eq!(book.attributed(&agent), (SESSION, Attribution::Session, vec![]));
}

#[test]
fn what_a_process_does_between_beginning_and_end_belongs_to_what_it_began() {
    let mut book = Actions::default();
    let (server, child, other) = (process(3, &[2, 1]), process(4, &[3, 2, 1]), process(5, &[2, 1]));
    let action = book.begins(&server, "write_file");
    for subject in [&server, &child] {
        assert_eq!(book.attributed(subject), (action, Attribution::Bracket, vec![]));
    }
    assert_eq!(book.attributed(&other), (SESSION, Attribution::Session, vec![]));
    book.writes(&server, 7);
    assert!(book.end(action).is_none(), "it has more to do");
    let outcome = Claim { outcome: Some("fine".into()), ..Claim::default() };
    let (ended, mut records) = book.claim_ends(&server, None, outcome).unwrap();
    assert_eq!((ended, records.len()), (action, 2), "what was said, and the end");
    assert_eq!(book.attributed(&server), (SESSION, Attribution::Session, vec![]));
    let Some(Record::Ended(sum, _)) = records.pop() else { panic!("it has not ended") };
    assert_eq!(sum.claim.as_ref().and_then(|claim| claim.outcome.as_deref()), Some("fine"));
    assert_eq!((sum.effects.files.changed, sum.tier, sum.attribution), (1, 6, Attribution::Bracket));
    assert_eq!(sum.claim.and_then(|claim| claim.tool).as_deref(), Some("write_file"));
    assert!(book.end(action).is_none(), "it ends once");
}

#[test]
fn a_command_started_within_what_was_begun_belongs_to_it() {
    let mut book = Actions::default();
    let server = process(3, &[2, 1]);
    let action = book.begins(&server, "bash");
    let (of_command, began) = book.command(&server, &["ls"]);
    assert_eq!((of_command, began.is_none()), (action, true), "it began before");
    assert_eq!(book.command(&process(4, &[3, 2, 1]), &["ls"]).0, action, "by way of a child");
    assert_eq!(book.command(&process(5, &[2, 1]), &["ls"]).0, id(2), "another process's is its own");
    // By its mark, whatever the server has begun since.
    let later = book.begins(&server, "bash");
    assert_eq!(book.attributed(&of_action(1, 6)), (action, Attribution::Subtree, vec![]));
    assert_eq!(book.command(&server, &["ls"]).0, later);
    assert_eq!(book.sum(action).effects.programs, 2);
}

#[test]
fn what_a_process_does_while_several_are_open_may_belong_to_each() {
    let mut book = Actions::default();
    let server = process(3, &[2, 1]);
    let [first, second, third] = ["a", "b", "c"].map(|tool| book.begins(&server, tool));
    assert_eq!(book.attributed(&server), (third, Attribution::Bracket, vec![first, second]));
    // They need not end in turn.
    assert_eq!(book.ends(&server, Some(second)), Ok(second));
    assert_eq!(book.attributed(&server), (third, Attribution::Bracket, vec![first]));
    assert_eq!(book.ends(&server, None), Ok(third));
    assert_eq!(book.attributed(&server), (first, Attribution::Bracket, vec![]));
    // A child that begins its own is not the parent's any more.
    let child = process(4, &[3, 2, 1]);
    let own = book.begins(&child, "d");
    assert_eq!(book.attributed(&child), (own, Attribution::Bracket, vec![]));
}

#[test]
fn nobody_ends_what_is_not_his_or_is_over() {
    let mut book = Actions::default();
    let (server, other) = (process(3, &[2, 1]), process(5, &[2, 1]));
    assert!(book.ends(&server, None).unwrap_err().contains("begun no action"));
    let action = book.begins(&server, "a");
    assert!(book.ends(&other, Some(action)).is_err());
    assert!(book.ends(&server, Some(id(9))).unwrap_err().contains("a9 is no open action"));
    assert!(book.ends(&process(4, &[3, 2, 1]), Some(action)).is_err(), "a child neither");
    assert_eq!(book.ends(&server, Some(action)), Ok(action));
    assert!(book.ends(&server, Some(action)).is_err());
    assert!(book.end(SESSION).is_none() && book.end(id(77)).is_none());
}

#[test]
fn a_process_of_a_command_begins_one_within_its_action() {
    let mut book = Actions::default();
    book.command(&process(2, &[1]), &["agent"]);
    let agent = of_action(1, 5);
    let own = book.begins(&agent, "bash");
    assert_eq!((own, book.sum(own).parent), (id(2), id(1)));
    assert_eq!(book.attributed(&agent), (own, Attribution::Bracket, vec![]));
    assert_eq!(book.for_command(&agent), Some(own), "what it starts is marked anew");
    // A command that it started before bears the older mark.
    let other = Subject { mark: id(9), ..process(6, &[5, 2, 1]) };
    assert_eq!(book.attributed(&other), (id(9), Attribution::Subtree, vec![]));
    assert_eq!(book.for_command(&other), None);
    book.ends(&agent, None).unwrap();
    assert_eq!((book.attributed(&agent).0, book.for_command(&agent)), (id(1), None));
}

#[test]
fn what_was_begun_lasts_until_what_it_started_has_ended() {
    let mut book = Actions::default();
    let server = process(3, &[2, 1]);
    let action = book.begins(&server, "bash");
    book.command(&server, &["sleep"]);
    let (_, records) = book.claim_ends(&server, None, Claim::default()).unwrap();
    assert_eq!(records.len(), 1, "it still runs");
    assert!(matches!(book.end(action), Some(Record::Ended(..))), "its last process is gone");
    // The other way round.
    let action = book.begins(&server, "bash");
    book.command(&server, &["true"]);
    assert!(book.end(action).is_none(), "more may come");
    let (_, records) = book.claim_ends(&server, None, Claim::default()).unwrap();
    assert_eq!(records.len(), 2);
}

#[test]
fn to_begin_or_end_a_part_sheds_no_taint() {
    let started = || {
        let mut book = Actions::default();
        book.command(&process(2, &[1]), &["server"]);
        (book, of_action(1, 5))
    };
    let (mut book, server) = started();
    book.reads_secret(&server, "env");
    book.begins(&server, "fetch");
    assert_eq!(book.tainted(&server), "env", "read before");
    assert_eq!(book.command(&server, &["curl"]).0, id(2));
    assert_eq!(book.tainted(&of_action(2, 6)), "env", "and what it starts");

    let (mut book, server) = started();
    book.writes(&server, 10);
    let part = book.begins(&server, "read_file");
    book.command(&server, &["cat"]);
    book.reads_secret(&of_action(2, 6), "env");
    assert_eq!(book.tainted(&server), "env", "read by what it started");
    assert_eq!(book.labels(10), "env", "what it holds open");
    book.ends(&server, None).unwrap();
    book.end(part).unwrap();
    assert_eq!([book.tainted(&server), book.tainted(&of_action(1, 7))], ["env", "env"], "after the end");
    assert_eq!(book.tainted(&process(2, &[1])), "", "the session's own process has read nothing");
}

#[test]
fn a_file_opened_before_a_part_began_carries_what_is_read_in_it() {
    let mut book = Actions::default();
    let (server, other) = (process(3, &[2, 1]), process(4, &[2, 1]));
    book.writes(&server, 10);
    book.writes(&other, 11);
    book.begins(&server, "read_file");
    book.reads_secret(&server, "env");
    assert_eq!([book.labels(10), book.labels(11)], ["env", ""]);
}

#[test]
fn a_process_has_a_bounded_number_of_actions_open() {
    let mut book = Actions::default();
    let server = process(3, &[2, 1]);
    for _ in 0..BRACKETS {
        book.begins(&server, "a");
    }
    assert!(book.claim_begins(&server, Claim::default()).unwrap_err().contains("end one"));
    book.begins(&process(5, &[2, 1]), "a");
    book.ends(&server, None).unwrap();
    book.begins(&server, "a");
}

#[test]
fn a_bounded_number_of_processes_has_actions_open() {
    let mut book = Actions::default();
    for pid in 10..10 + SPEAKERS as i32 {
        book.begins(&process(pid, &[1]), "a");
    }
    assert!(book.claim_begins(&process(3, &[1]), Claim::default()).is_err());
    book.begins(&process(10, &[1]), "a");
    book.ends(&process(11, &[1]), None).unwrap();
    book.begins(&process(3, &[1]), "a");
}

#[test]
fn what_a_process_says_is_noted_with_the_action_it_belongs_to() {
    let mut book = Actions::default();
    let server = process(3, &[2, 1]);
    let noted = |book: &mut Actions, subject: &Subject| {
        let claim = Claim { note: Some("nearly there".into()), ..Claim::default() };
        let (action, Record::Claimed(claimed)) = book.claim_notes(subject, claim.clone()) else { panic!() };
        assert_eq!((claimed.action, &claimed.claim, &claimed.process), (action, &claim, subject));
        action
    };
    assert_eq!(noted(&mut book, &server), SESSION);
    let action = book.begins(&server, "a");
    assert_eq!(noted(&mut book, &server), action);
    assert_eq!(noted(&mut book, &of_action(8, 6)), id(8));
}

#[test]
fn a_secret_taints_the_action_that_read_it_and_no_other() {
    let mut book = Actions::default();
    let agent = process(2, &[1]);
    let (first, second) = (book.command(&agent, &["cat"]).0, book.command(&agent, &["ls"]).0);
    book.reads_secret(&of_action(1, 5), "env");
    book.reads_secret(&of_action(1, 6), "cloud");
    assert_eq!(book.tainted(&of_action(1, 7)), "cloud, env");
    assert_eq!([book.tainted(&of_action(2, 8)), book.tainted(&agent)], ["", ""]);
    assert_eq!(book.sum(first).taint.to_string(), "cloud, env");
    assert_eq!((book.sum(first).effects.secrets.len(), book.sum(second).taint.is_empty()), (2, true));
}

#[test]
fn a_secret_that_a_process_of_the_session_read_stays_with_it_and_what_it_starts() {
    let mut book = Actions::default();
    let (agent, helper) = (process(2, &[1]), process(3, &[2, 1]));
    let action = book.begins(&helper, "read_file");
    book.reads_secret(&helper, "env");
    assert_eq!(book.ends(&helper, None), Ok(action));
    assert_eq!(book.tainted(&helper), "env", "in whatever it begins next");
    assert_eq!(book.tainted(&process(4, &[3, 2, 1])), "env");
    let started = book.command(&helper, &["curl"]).0;
    let command = Subject { mark: started, ..process(6, &[3, 2, 1]) };
    assert_eq!(book.tainted(&command), "env");
    assert_eq!(book.tainted(&agent), "", "not with its parent");
}

#[test]
fn a_file_carries_what_its_writer_had_read() {
    let mut book = Actions::default();
    let agent = process(2, &[1]);
    book.command(&agent, &["cp"]);
    let command = of_action(1, 5);
    book.writes(&command, 10);
    book.reads_secret(&command, "env");
    book.writes(&command, 11);
    assert_eq!([book.labels(10), book.labels(11), book.labels(12)], ["env", "env", ""], "open before, and after");
    // One that is made, and not by that process.
    let event = book.asked(&of_action(1, 6), file(FileOp::Create, 13));
    book.settled(&event, &weight(2), Some((1, 13)), Came::Done);
    assert_eq!(book.labels(13), "env");
    // Another file with the number of one that is gone.
    let event = book.asked(&agent, file(FileOp::Create, 11));
    book.settled(&event, &weight(2), Some((1, 11)), Came::Done);
    assert_eq!(book.labels(11), "");
    // Under another name it would not be known for what it is.
    let carried = Weight { carried: ["ssh-key"].into(), ..weight(2) };
    book.does(&agent, Access::Move { op: MoveOp::Rename, from: at(20), to: at(21) }, &carried);
    assert_eq!(book.labels(20), "ssh-key");
}

#[test]
fn in_the_session_only_the_readers_own_open_files_carry_it() {
    let mut book = Actions::default();
    let (reader, other) = (process(3, &[2, 1]), process(4, &[2, 1]));
    book.writes(&reader, 10);
    book.writes(&other, 11);
    book.reads_secret(&reader, "env");
    book.writes(&other, 12);
    assert_eq!([book.labels(10), book.labels(11), book.labels(12)], ["env", "", ""]);
}

#[test]
fn nothing_is_tainted_by_a_read_that_was_refused_or_failed() {
    let mut book = Actions::default();
    book.command(&process(2, &[1]), &["cat"]);
    let command = of_action(1, 5);
    for came in [Came::Refused, Came::Failed] {
        let event = book.asked(&command, file(FileOp::Read, 500));
        book.settled(&event, &secret("env"), None, came);
    }
    assert_eq!(book.tainted(&command), "");
    let sum = book.sum(id(1));
    assert_eq!((sum.denied, sum.refused_tier, sum.tier, sum.effects.secrets.len()), (1, Some(5), 0, 0));
}

#[test]
fn where_no_more_files_are_remembered_all_is_tainted() {
    let mut book = Actions::default();
    let labels = Labels::from(["env"]);
    (0..LABELLED as u64).for_each(|number| book.label((1, number), &labels));
    assert_eq!(book.tainted(&process(2, &[1])), "");
    book.label((1, 5), &["cloud"].into());
    assert_eq!(
        (book.tainted(&process(2, &[1])).as_str(), book.labels(5).as_str()),
        ("", "cloud, env"),
        "it has a place"
    );
    book.label((2, 0), &["registry"].into());
    assert_eq!((book.labelled.len(), book.tainted(&process(2, &[1])).as_str()), (LABELLED, "registry"));
}

#[test]
fn where_no_more_processes_are_remembered_all_is_tainted() {
    let mut book = Actions::default();
    (10..10 + TAINTED as i32).for_each(|pid| book.taint(pid, &["env"].into()));
    assert_eq!(book.tainted(&process(2, &[1])), "");
    book.taint(3, &["cloud"].into());
    assert_eq!((book.tainted.len(), book.tainted(&process(2, &[1])).as_str()), (TAINTED, "cloud"));
}

#[test]
fn a_file_counts_as_changed_once_while_there_is_room_to_remember() {
    let mut book = Actions::default();
    book.command(&process(2, &[1]), &["sh"]);
    let command = of_action(1, 5);
    (0..3).for_each(|_| book.writes(&command, 7));
    assert_eq!(book.sum(id(1)).effects.files.changed, 1);
    // Only each action's own are remembered.
    book.writes(&process(2, &[1]), 7);
    assert_eq!(book.sum(SESSION).effects.files.changed, 1);
    let open = book.open.get_mut(&id(1)).unwrap();
    (0..FILES as u64).for_each(|number| open.touch((2, number), 5));
    assert_eq!(open.touched.len(), FILES);
    (0..3).for_each(|_| book.writes(&command, 8));
    assert_eq!(book.sum(id(1)).effects.files.changed, 4, "each time");
    assert_eq!(book.open[&id(1)].touched.len(), FILES);
}

#[test]
fn what_an_action_has_destroyed_is_known_when_it_asks_again() {
    let mut book = Actions::default();
    book.command(&process(2, &[1]), &["rm"]);
    let command = of_action(1, 5);
    book.does(&command, file(FileOp::Unlink, 7), &weight(6));
    book.does(&command, file(FileOp::Write, 8), &weight(6));
    // What can be made again is no loss.
    let again = Weight { reversibility: Reversibility::R2, ..weight(3) };
    book.does(&command, file(FileOp::Unlink, 9), &again);
    let so_far = book.asked(&of_action(1, 6), file(FileOp::Unlink, 10)).standing.so_far;
    assert_eq!(so_far, Losses { files: 1, bytes: 20 });
    let elsewhere = book.asked(&process(2, &[1]), file(FileOp::Unlink, 10)).standing;
    assert!(elsewhere.so_far.is_none());
    assert_eq!(elsewhere.in_run, so_far, "but in the run");
    let files = book.total().effects.files;
    assert_eq!((files.deleted, files.changed, files.unheld, files.bytes_lost), (2, 1, 2, 30));
}

#[test]
fn of_too_many_actions_the_lightest_are_left_out() {
    let mut book = Actions::default();
    let agent = process(2, &[1]);
    for number in 1..=KEPT as u32 + 3 {
        book.command(&agent, &["true"]);
        let tier = if number == 2 { 6 } else { 2 };
        book.does(&of_action(number, 5), file(FileOp::Unlink, 7), &weight(tier));
        if number == 1 {
            let event = book.asked(&of_action(1, 5), file(FileOp::Unlink, 8));
            book.settled(&event, &weight(10), None, Came::Refused);
        }
        assert!(book.end(id(number)).is_some(), "each is on record");
    }
    let sums = book.sums();
    assert_eq!((sums.len(), book.left_out()), (KEPT + 1, 3), "and the session");
    assert!(sums.windows(2).all(|pair| pair[0].action < pair[1].action), "in their order");
    assert_eq!(sums[1..3].iter().map(|sum| sum.action).collect::<Vec<_>>(), [id(1), id(2)]);
    assert_eq!(book.total().effects.files.deleted, KEPT as u64 + 3, "the total has all");
}

#[test]
fn at_the_end_all_that_is_open_ends_in_order() {
    let mut book = Actions::default();
    let (agent, server) = (process(2, &[1]), process(3, &[2, 1]));
    book.command(&agent, &["sleep"]);
    book.begins(&server, "a");
    book.command(&agent, &["sleep"]);
    book.begins(&server, "b");
    book.end(id(3)).unwrap();
    let ended = |book: &mut Actions| {
        let action = |record| match record {
            Record::Ended(sum, _) => sum.action,
            _ => panic!("another record"),
        };
        book.end_all().into_iter().map(action).collect::<Vec<_>>()
    };
    assert_eq!(ended(&mut book), [id(1), id(2), id(4)]);
    assert_eq!(ended(&mut book), []);
    assert_eq!(book.attributed(&server), (SESSION, Attribution::Session, vec![]));
    assert_eq!(book.sums().iter().map(|sum| sum.action).collect::<Vec<_>>(), [SESSION, id(1), id(2), id(3), id(4)]);
}

#[test]
fn what_is_sent_counts_by_what_was_read_before() {
    let mut book = Actions::default();
    book.command(&process(2, &[1]), &["curl"]);
    let command = of_action(1, 5);
    let connect = || {
        let (address, names) = ("192.0.2.1:443".parse().unwrap(), Vec::new());
        let transport = crate::event::Transport::Tcp;
        Access::Connect { to: crate::event::Endpoint::Inet { address, outside: true, transport, names } }
    };
    let listed = Weight { kind: Kind::Listed, tier: 3, ..Weight::default() };
    book.does(&command, connect(), &listed);
    book.reads_secret(&command, "env");
    book.does(&command, connect(), &Weight { kind: Kind::ListedTainted, tier: 8, ..Weight::default() });
    let event = book.asked(&command, connect());
    book.settled(&event, &listed, None, Came::Refused);
    let toward = Toward::of(&event).unwrap();
    book.transferred(&toward, Some(Moved { out: 5, inward: 7 }));
    let sum = book.sum(id(1));
    assert_eq!((sum.effects.connections, sum.effects.tainted_connections, sum.tier), (2, 1, 8));
    let [destination] = &sum.destinations[..] else { panic!("{:?}", sum.destinations) };
    assert_eq!((destination.allowed, destination.denied, destination.bytes_out), (2, 1, Some(5)));
    assert!(book.sum(SESSION).destinations.is_empty());
}

#[test]
fn what_a_process_leaves_behind_as_it_dies_ends_and_is_nobody_elses() {
    let mut book = Actions::default();
    let (dead, living) = (process(3, &[2, 1]), process(4, &[2, 1]));
    let ended = book.begins(&dead, "a");
    let kept = book.begins(&dead, "b");
    book.command(&dead, &["sleep"]);
    let other = book.begins(&living, "c");
    let records = book.abandon(|host| host == dead.host);
    assert!(matches!(&records[..], [Record::Ended(sum, _)] if sum.action == ended), "the other still runs");
    assert_eq!(book.attributed(&dead), (SESSION, Attribution::Session, vec![]), "the number is free");
    assert_eq!(book.attributed(&living).0, other);
    assert!(matches!(book.end(kept), Some(Record::Ended(..))), "as its last process goes");
    assert!(book.abandon(|_| false).is_empty());
}

#[test]
fn an_action_with_a_question_that_is_not_settled_ends_after_that() {
    let (mut book, agent) = (Actions::default(), process(2, &[1]));
    let action = book.begins(&agent, "edit");
    let question = |book: &Actions| {
        let mut event = Event::new(agent.clone().into(), file(FileOp::Write, 7));
        let asking = book.prepare(&mut event, SESSION, None).unwrap();
        (event, asking)
    };
    let (event, asking) = question(&book);
    let claim = Claim::default();
    let (_, records) = book.claim_ends(&agent, None, claim).unwrap();
    assert!(matches!(records[..], [Record::Claimed(_)]), "it has not ended yet");
    assert!(book.abandon(|_| false).is_empty());
    book.settled(&event, &weight(6), None, Came::Done);
    let Some(Record::Ended(sum, _)) = book.answered(action, asking) else { panic!("it ends with the last question") };
    assert_eq!((sum.action, sum.effects.files.changed), (action, 1));

    let action = book.begins(&agent, "edit");
    let (_, lost) = question(&book);
    book.claim_ends(&agent, None, Claim::default()).unwrap();
    drop(lost);
    assert_eq!(book.abandon(|_| false).len(), 1, "a question that nobody settles does not keep it");
    assert!(book.end(action).is_none());
}
