//! The thread that makes all calls of MPI: it swaps what ranks give each other, and meanwhile hears that they are
//! alive, fail or leave.
//!
//! None of its calls waits inside MPI, where waiting takes a whole core. The thread asks, and sleeps a little longer
//! each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use mpi::environment::Universe;
use mpi::point_to_point::{Message as Probed, Status};
use mpi::request::{LocalScope, Request, Scope, StaticScope, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Destination, Equivalence, Source};

use crate::ranks::exchange::Patience;
use crate::ranks::processes::message::{Cause, Failure, Message};
use crate::ranks::processes::pause::Pause;
use crate::ranks::processes::places::Places;
use crate::ranks::processes::process::Process;
use crate::ranks::processes::round::{Head, Round, Taken};

/// Tags of messages: of [`Message`], of [`Head`], and of the bytes that do not travel with their head.
const MESSAGE: i32 = 1;
const HEAD: i32 = 2;
const BYTES: i32 = 3;

/// Bytes of one send. MPI counts with 32 bits.
const CHUNK: usize = 1 << 30;

/// Time between two signs of life, that of Open MPI's failure detector (`mpi_ft_detector_period`).
const BEAT: Duration = Duration::from_secs(3);

/// A process that was silent for so long is taken for dead: three times `mpi_ft_detector_timeout` of Open MPI, as this
/// thread shares its cores with the threads that load images.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// How long ranks wait for each other within a step, as threads do (`on_devices.rs`).
const DEADLINE: Duration = Duration::from_secs(3600);

/// How long a rank that leaves waits for others to leave, as threads do.
const PARTING: Duration = Duration::from_secs(20);

/// Longest time between two looks that counts: a process that was suspended meanwhile has not waited.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// Time between two looks at the process of another rank. When one is killed, mpirun kills the others a second later,
/// and the first rank says before who is lost.
const WATCH: Duration = Duration::from_millis(50);

/// Time between two looks while the rank computes.
const IDLE: Duration = Duration::from_millis(10);

/// What the thread is asked to do.
pub(super) enum Order {
    Swap(Round),
    /// This rank has failed.
    Fail(Failure),
    /// A warning for the first rank.
    Warn(String),
    /// This rank does nothing more. `heard`: whether the first rank has left too; `done`: after the last call of MPI.
    Leave {
        heard: Sender<bool>,
        done: Sender<()>,
    },
}

/// What is known of another rank.
#[derive(Clone, Default)]
struct Peer {
    silent_for: Duration,
    has_left: bool,
    /// It hangs or is dead: nobody waits for it.
    is_gone: bool,
    /// Its process, if this machine sees it.
    process: Option<Process>,
}

impl Peer {
    /// Whether it is expected to answer.
    fn is_here(&self) -> bool {
        !self.has_left && !self.is_gone
    }
}

pub(super) struct Communication {
    universe: Universe,
    world: SimpleCommunicator,
    rank: usize,
    orders: Receiver<Order>,
    warnings: Sender<String>,
    /// Counts looks, so that others see that this thread does not hang.
    looks: Arc<AtomicU64>,
    peers: Vec<Peer>,
    host: String,
    places: Arc<Places>,
    failure: Option<Failure>,
    rounds: u64,
    sending: Vec<Request<'static, [u8], StaticScope>>,
    last_look: Instant,
    last_beat: Instant,
    last_watch: Instant,
    /// The rank of which the process was not found at the last watch.
    missed: Option<usize>,
}

impl Communication {
    pub fn new(
        universe: Universe,
        orders: Receiver<Order>,
        warnings: Sender<String>,
        looks: Arc<AtomicU64>,
        (host, places): (String, Arc<Places>),
    ) -> Self {
        let world = universe.world();
        let (rank, ranks) = (world.rank() as usize, world.size() as usize);
        let (peers, now) = (vec![Peer::default(); ranks], Instant::now());
        Self {
            universe,
            world,
            rank,
            orders,
            warnings,
            looks,
            peers,
            host,
            places,
            failure: None,
            rounds: 0,
            sending: Vec::new(),
            last_look: now,
            last_beat: now,
            last_watch: now,
            missed: None,
        }
    }

    /// Does what it is asked to until the rank leaves.
    pub fn run(mut self) {
        self.send_all(&Message::Hello { host: self.host.clone(), process: Process::own() });
        loop {
            match self.orders.recv_timeout(IDLE) {
                Ok(Order::Swap(round)) => {
                    let found = self.swap(&round);
                    // The rank does not wait any more if it was ended.
                    let _ = round.answer.send(found);
                }
                Ok(Order::Fail(failure)) => self.fail(failure),
                Ok(Order::Warn(text)) => self.send(0, &Message::warning(&text)),
                Ok(Order::Leave { heard, done }) => {
                    let may_finalize = self.leave(&heard);
                    if may_finalize {
                        drop(self.universe);
                    }
                    let _ = done.send(());
                    if !may_finalize {
                        rest()
                    }
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The world is never dropped.
                Err(RecvTimeoutError::Disconnected) => rest(),
            }
            self.look();
        }
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        // Each rank begins with the next one, so that not all send to the same.
        let (rank, ranks) = (self.rank, self.peers.len());
        (1..ranks).map(move |distance| (rank + distance) % ranks)
    }

    /// Gives every rank its part and takes what they give. No round is completed after a failure.
    fn swap(&mut self, round: &Round) -> Result<Vec<Taken>, Failure> {
        let mut heads = self.swap_heads(round)?;
        self.rounds += 1;
        // The others have come: what is left is to move bytes.
        scope(|scope| {
            let mut moving = Vec::new();
            for (from, found) in heads.iter_mut().enumerate() {
                if let Some((head, taken)) = found
                    && !head.is_inline()
                {
                    let process = self.world.process_at_rank(from as i32);
                    for bytes in taken.bytes_mut().chunks_mut(CHUNK) {
                        moving.push(process.immediate_receive_into_with_tag(scope, bytes, BYTES));
                    }
                }
            }
            for to in self.others() {
                let head = self.head(round, to);
                if !head.is_inline() {
                    let process = self.world.process_at_rank(to as i32);
                    for bytes in round.part(to).chunks(CHUNK) {
                        moving.push(process.immediate_send_with_tag(scope, bytes, BYTES));
                    }
                }
            }
            let mut pause = Pause::while_bytes_move();
            loop {
                let before = moving.len();
                moving = incomplete(moving);
                if moving.is_empty() {
                    return;
                }
                if moving.len() < before {
                    pause = Pause::while_bytes_move();
                }
                self.look();
                self.linger_if_one_is_gone(round);
                pause.rest();
            }
        });
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let own = round.room(0);
        let taken = heads.into_iter().map(|taken| taken.map(|(_, taken)| taken));
        Ok(taken.filter_map(|taken| taken.or_else(|| own_place(&own))).collect())
    }

    fn head(&self, round: &Round, to: usize) -> Head {
        Head { round: self.rounds, call: round.call, length: round.part(to).len() as u64 }
    }

    /// Waits until all ranks have come to this round. Returns what they give, so far as it travels with its head, and
    /// the room for the rest.
    fn swap_heads(&mut self, round: &Round) -> Result<Vec<Option<(Head, Taken)>>, Failure> {
        let heads: Vec<Vec<u8>> = (0..self.peers.len()).map(|to| self.head(round, to).with(round.part(to))).collect();
        let mut found: Vec<Option<(Head, Taken)>> = self.peers.iter().map(|_| None).collect();
        scope(|scope| {
            let mut sending: Vec<Request<'_, [u8], &LocalScope<'_>>> = Vec::new();
            for to in self.others().filter(|_| self.failure.is_none()) {
                let process = self.world.process_at_rank(to as i32);
                sending.push(process.immediate_send_with_tag(scope, &heads[to][..], HEAD));
            }
            let (mut pause, mut waited) = (Pause::until_others_come(round.patience), Duration::ZERO);
            loop {
                for from in self.others() {
                    if found[from].is_some() {
                        continue;
                    }
                    let process = self.world.process_at_rank(from as i32);
                    if let Some(probed) = process.immediate_matched_probe_with_tag(HEAD) {
                        self.peers[from].silent_for = Duration::ZERO;
                        found[from] = self.take(round, from, &received(probed));
                        pause = Pause::until_others_come(round.patience);
                    }
                }
                waited += self.look();
                sending = incomplete(sending);
                let missing = self.others().find(|from| found[*from].is_none());
                if let Some(failure) = &self.failure {
                    if sending.is_empty() {
                        return Err(failure.clone());
                    }
                    self.linger_if_one_is_gone(round);
                }
                match missing {
                    None if sending.is_empty() => return Ok(()),
                    Some(missing) if round.patience == Patience::Deadline && waited > DEADLINE => {
                        let cause = Cause::Late { seconds: DEADLINE.as_secs() };
                        self.fail(Failure::found(missing, cause));
                    }
                    _ => pause.rest(),
                }
            }
        })?;
        Ok(found)
    }

    /// What a head says and brings. If it is of another call, ranks do different things, which is a failure.
    fn take(&mut self, round: &Round, from: usize, bytes: &[u8]) -> Option<(Head, Taken)> {
        let found = Head::read(bytes).filter(|(head, _)| head.round == self.rounds && head.call == round.call);
        let room = |length: u64| usize::try_from(length).ok().and_then(|length| round.room(length));
        let taken = found.and_then(|(head, inline)| Some((head, inline, room(head.length)?)));
        let Some((head, inline, mut taken)) = taken else {
            let problem = format!("ranks {} and {from} exchange different things", self.rank);
            self.fail(Failure::found(self.rank, Cause::internal(&problem)));
            return None;
        };
        if head.is_inline() {
            taken.bytes_mut().copy_from_slice(inline);
        }
        Some((head, taken))
    }

    /// Takes all messages, sends signs of life, and counts the time. Returns the time since the last look.
    fn look(&mut self) -> Duration {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let elapsed = now.duration_since(self.last_look).min(LONGEST_LOOK);
        self.last_look = now;
        self.peers.iter_mut().for_each(|peer| peer.silent_for += elapsed);
        while let Some(probed) = self.world.any_process().immediate_matched_probe_with_tag(MESSAGE) {
            let from = probed.1.source_rank() as usize;
            self.peers[from].silent_for = Duration::ZERO;
            match Message::read(&received(probed)) {
                Ok(Message::Hello { host, process }) => {
                    self.peers[from].process = process.filter(|process| host == self.host && process.is_seen());
                    self.places.note_host(from, host);
                }
                Ok(Message::Beat) => {}
                // Nobody listens when the run has ended.
                Ok(Message::Warning(text)) => _ = self.warnings.send(text),
                Ok(Message::Failed(failure)) => self.note(failure),
                Ok(Message::Goodbye) => self.peers[from].has_left = true,
                Err(error) => {
                    let problem = format!("a message of rank {from}: {error}");
                    self.fail(Failure::found(self.rank, Cause::internal(&problem)));
                }
            }
        }
        self.sending = incomplete(std::mem::take(&mut self.sending));
        if now.duration_since(self.last_beat) >= BEAT {
            self.last_beat = now;
            self.send_all(&Message::Beat);
        }
        let is_silent = |rank: &usize| self.peers[*rank].silent_for > SILENCE && self.peers[*rank].is_here();
        if let Some(rank) = self.others().find(is_silent) {
            self.peers[rank].is_gone = true;
            self.fail(Failure::found(rank, Cause::Silent { seconds: SILENCE.as_secs() }));
        }
        if now.duration_since(self.last_watch) >= WATCH {
            self.last_watch = now;
            self.watch();
        }
        elapsed
    }

    /// Sees whether the process of the next rank on this machine runs: each rank watches one, and tells all. It is
    /// looked for twice, so that its last message is heard.
    fn watch(&mut self) {
        let next = self.others().find(|rank| self.peers[*rank].process.is_some() && self.peers[*rank].is_here());
        let has_ended = |rank: &usize| self.peers[*rank].process.as_ref().is_some_and(Process::has_ended);
        let missing = next.filter(has_ended);
        match missing {
            Some(rank) if self.missed == missing => {
                self.peers[rank].is_gone = true;
                self.fail(Failure::found(rank, Cause::Gone));
            }
            _ => self.missed = missing,
        }
    }

    fn send(&mut self, to: usize, message: &Message) {
        let process = self.world.process_at_rank(to as i32);
        self.sending.push(process.immediate_send_with_tag(StaticScope, message.bytes(), MESSAGE));
    }

    fn send_all(&mut self, message: &Message) {
        for to in self.others() {
            if !self.peers[to].is_gone {
                self.send(to, message);
            }
        }
    }

    /// Ends the run, and tells all. The first failure counts.
    fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.note(failure.clone());
            self.send_all(&Message::Failed(failure));
        }
    }

    fn note(&mut self, failure: Failure) {
        self.peers[failure.rank].is_gone |= failure.is_gone() && failure.rank != self.rank;
        self.failure.get_or_insert(failure);
    }

    /// Says goodbye and waits for the others: for the first rank as long as it lives, as it may save. Returns whether
    /// MPI can be finalized, which waits for all.
    fn leave(&mut self, heard: &Sender<bool>) -> bool {
        self.send_all(&Message::Goodbye);
        // Nothing is sent after it.
        self.last_beat = Instant::now() + DEADLINE;
        let has_come = |peer: &Peer| !peer.is_here();
        let mut waited = Duration::ZERO;
        let mut pause = Pause::until_others_come(Patience::AsLongAsItTakes);
        while waited < PARTING && !(self.sending.is_empty() && self.others().all(|rank| has_come(&self.peers[rank]))) {
            let elapsed = self.look();
            if self.rank == 0 || has_come(&self.peers[0]) {
                waited += elapsed;
            }
            pause.rest();
        }
        // Where the first rank is lost, the next one that is left speaks.
        let others_speak = self.peers[..self.rank].iter().any(|peer| !peer.is_gone);
        let is_said = self.rank == 0 || self.peers[0].has_left || (self.peers[0].is_gone && others_speak);
        let _ = heard.send(is_said);
        self.sending.is_empty() && self.others().all(|rank| self.peers[rank].has_left)
    }

    /// Does not return if a rank hangs or is dead, or the others say so of this one: bytes that move to or from it may
    /// never arrive, and their memory must stay where it is. The process then ends without finalizing MPI.
    fn linger_if_one_is_gone(&mut self, round: &Round) {
        let is_lost = |failure: &Failure| failure.is_gone() || self.peers.iter().any(|peer| peer.is_gone);
        let Some(failure) = self.failure.clone().filter(is_lost) else { return };
        let _ = round.answer.send(Err(failure.clone()));
        loop {
            match self.orders.recv_timeout(IDLE) {
                Ok(Order::Swap(round)) => _ = round.answer.send(Err(failure.clone())),
                Ok(Order::Leave { heard, done }) => {
                    self.leave(&heard);
                    let _ = done.send(());
                    rest()
                }
                Ok(Order::Fail(_) | Order::Warn(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => rest(),
            }
            self.look();
        }
    }
}

/// Makes no call of MPI any more. The thread ends with the process.
fn rest() -> ! {
    loop {
        thread::park();
    }
}

/// What stands in the place of this rank.
fn own_place(empty: &Option<Taken>) -> Option<Taken> {
    match empty.as_ref()? {
        Taken::Bytes(_) => Some(Taken::Bytes(Vec::new())),
        Taken::Values(_) => Some(Taken::Values(Vec::new())),
    }
}

/// The bytes of a short message that has arrived.
fn received((message, status): (Probed, Status)) -> Vec<u8> {
    let mut bytes = vec![0; status.count(u8::equivalent_datatype()) as usize];
    message.matched_receive_into(&mut bytes[..]);
    bytes
}

/// The requests that are not complete.
fn incomplete<'a, S: Scope<'a>>(requests: Vec<Request<'a, [u8], S>>) -> Vec<Request<'a, [u8], S>> {
    requests.into_iter().filter_map(|request| request.test().err()).collect()
}
