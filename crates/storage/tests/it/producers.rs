//! Idempotent appends, and appends that are waited for later.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{
    AppendOptions, CompactionReport, DataDir, DataDirOptions, Durability, Error, Log, LogConfig,
    ManualClock, Producer, Record,
};

fn open(disk: &SimDisk) -> (DataDir, Log) {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let dir = DataDirOptions::new().threads(0).clock(clock).open_with(disk.io()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default().segment_bytes_max(4 << 10)).unwrap();
    (dir, log)
}

fn by(id: i64, epoch: i16, sequence: i32) -> AppendOptions {
    AppendOptions { producer: Some(Producer { id, epoch, sequence }), ..AppendOptions::default() }
}

/// A batch of such a producer was acknowledged, and no reader took the frame: the log could not be opened again.
#[test]
fn a_producer_with_a_negative_number_is_refused_and_nothing_is_written() {
    let disk = SimDisk::new(1);
    let (dir, log) = open(&disk);
    for options in [by(-1, 0, 0), by(1, -1, 0), by(1, 0, -1), by(i64::MIN, i16::MIN, i32::MIN)] {
        let refused = log.append_with(&[Record::value(b"x")], &options);
        assert!(
            matches!(refused, Err(Error::InvalidProducer { producer }) if Some(producer) == options.producer),
            "{refused:?}"
        );
    }
    assert_eq!(log.end_offset(), 0);
    log.append_with(&[Record::value(b"x")], &by(i64::MAX, i16::MAX, i32::MAX)).unwrap();
    log.append_with(&[Record::value(b"x")], &by(i64::MAX, i16::MAX, 0)).unwrap();
    drop((log, dir));
    disk.kill();
    let (_dir, log) = open(&disk);
    assert_eq!(log.read(0, usize::MAX).unwrap().len(), 2);
    assert_eq!(log.last_sequence(i64::MAX).unwrap(), Some((i16::MAX, 0)));
}

#[test]
fn a_retry_after_any_crash_is_appended_once_and_keeps_its_offset() {
    for settle in [false, true] {
        let disk = SimDisk::new(1);
        let (dir, log) = open(&disk);
        let value = [7; 300];
        let records = [Record::value(&value), Record::value(&value)];
        let mut first = Vec::new();
        for n in 0..30 {
            first.push(log.append_with(&records, &by(5, 0, n * 2)).unwrap());
            log.append_with(&[Record::value(b"other")], &by(6, 3, n)).unwrap();
            if settle {
                log.settle().unwrap();
            }
        }
        drop((log, dir));
        disk.crash(&CrashPlan::nothing());
        let (_dir, log) = open(&disk);
        let end = log.end_offset();
        for n in 26..30 {
            let again = log.append_with(&records, &by(5, 0, n * 2)).unwrap();
            assert!(again.duplicate);
            assert_eq!(again.base_offset, first[n as usize].base_offset);
        }
        assert_eq!(log.end_offset(), end, "nothing was appended");
        assert!(matches!(
            log.append_with(&records, &by(6, 2, 30)),
            Err(Error::ProducerFenced { current: 3, .. })
        ));
        assert!(matches!(
            log.append_with(&records, &by(5, 0, 62)),
            Err(Error::OutOfOrderSequence { expected: 60, found: 62, .. })
        ));
        assert!(!log.append_with(&records, &by(5, 0, 60)).unwrap().duplicate);
        assert!(
            !log.append_with(&records, &by(5, 1, 0)).unwrap().duplicate,
            "a new epoch begins at 0"
        );
        assert_eq!(log.last_sequence(5).unwrap(), Some((1, 1)));
    }
}

fn compact(disk: &SimDisk) -> Result<CompactionReport, Error> {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let dir = DataDirOptions::new().threads(0).clock(clock).open_with(disk.io())?;
    let log = Log::open(&dir, "1", LogConfig::default())?;
    // Behind what was found, which is sealed then.
    log.append(&Record::value(b"v").key(b"k"))?;
    log.settle()?;
    log.compact()
}

/// What a producer had last was in a snapshot alone, since its records had been removed, and the snapshot bears the base
/// offset of a segment that began where it was taken. Compaction, or the recovery after a crash in it, merged that segment
/// into the one before and removed the snapshot with its files: after the next crash a retry was appended once more.
#[test]
fn a_producer_whose_records_are_gone_is_known_after_a_crash_at_any_call_of_a_compaction() {
    let disk = SimDisk::new(1);
    let (dir, log) = open(&disk);
    log.append_with(&[Record::value(b"once")], &by(5, 0, 0)).unwrap();
    log.delete_records_before(1).unwrap();
    let append = || log.append(&Record::value(b"v").key(b"k")).unwrap();
    append();
    append();
    log.roll().unwrap();
    log.settle().unwrap();
    append();
    append();
    drop((log, dir));
    disk.kill();
    let whole = disk.fork(0);
    let report = compact(&whole).unwrap();
    assert_eq!((report.rewritten, report.written), (2, 1));
    let calls = whole.change_points();
    assert!(calls.len() > 10, "{} calls change something", calls.len());
    for call in calls {
        let disk = disk.fork(call);
        disk.stop_at(call);
        let stopped = compact(&disk);
        assert!(disk.is_stopped(), "call {call}: {stopped:?}");
        disk.crash(&CrashPlan::everything());
        let (_dir, log) = open(&disk);
        assert_eq!(log.last_sequence(5).unwrap(), Some((0, 0)), "call {call}");
        assert!(log.append_with(&[Record::value(b"once")], &by(5, 0, 0)).unwrap().duplicate);
    }
    whole.kill();
    let (_dir, log) = open(&whole);
    assert_eq!(log.last_sequence(5).unwrap(), Some((0, 0)));
}

#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = signal.woken.lock().unwrap();
        while !*woken {
            woken = signal.changed.wait(woken).unwrap();
        }
        *woken = false;
    }
}

#[test]
fn tickets_are_waited_for_in_any_order_by_threads_or_as_futures_without_a_runtime() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    let submit =
        |n: u32| log.submit(&[Record::value(&n.to_le_bytes())], &AppendOptions::default()).unwrap();
    let tickets: Vec<_> = (0..100).map(submit).collect();
    assert_eq!(log.end_offset(), 100);
    for (n, ticket) in tickets.into_iter().enumerate().rev() {
        assert_eq!(ticket.offsets().base_offset, n as u64);
        assert_eq!(ticket.wait().unwrap().base_offset, n as u64);
        assert_eq!(log.durable_offset(), 100, "one sync serves all that came before it");
    }
    for n in 100..110 {
        assert_eq!(block_on(submit(n)).unwrap().base_offset, u64::from(n));
    }
    let buffered =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    let ticket = log.submit(&[Record::value(b"stored")], &buffered).unwrap();
    assert!(ticket.is_settled());
    drop(log.submit(&[Record::value(b"dropped ticket")], &AppendOptions::default()).unwrap());
    log.sync().unwrap();
    assert_eq!(log.read(0, usize::MAX).unwrap().len(), 112, "dropping a ticket cancels nothing");
}
