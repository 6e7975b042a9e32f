//! What names can stand for: nothing, something else, too much, or nothing that this engine knows.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::{Case, Store, case, killed, set_mode};

/// The names that the engine looks at, each once.
const LOOKED_AT: [&str; 12] = [
    "first segment",
    "middle segment",
    "last segment",
    "manifest",
    "live",
    "index",
    "time index",
    "spare",
    "quarantine",
    "log",
    "LOCK",
    "ALIVE",
];

fn named(store: &Store, what: &str) -> PathBuf {
    match what {
        "first segment" => store.segment(0),
        "middle segment" => store.segment(1),
        "last segment" => store.segment(store.bases.len() - 1),
        "index" => store.beside(0, "index"),
        "time index" => store.beside(0, "time"),
        "log" => store.path("1"),
        "LOCK" | "ALIVE" => store.path(what),
        name => store.path("1").join(name),
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases =
        vec![case("nothing is wrong", |_| {}), killed("nothing is wrong but for a kill", |_| {})];
    cases.extend(missing());
    cases.extend(replaced());
    cases.extend(moved());
    cases.extend(strange());
    cases.extend(modes());
    cases
}

fn missing() -> impl Iterator<Item = Case> {
    LOOKED_AT.into_iter().filter(|what| !matches!(*what, "spare" | "quarantine")).flat_map(|what| {
        [
            case(format!("{what}: missing"), move |s| remove(&named(s, what))),
            killed(format!("{what}: missing after a kill"), move |s| remove(&named(s, what))),
        ]
    })
}

/// Another kind of thing in the place of a file or a directory. In the place of a lock it was once reported as an invalid
/// argument, and always for `LOCK`.
fn replaced() -> impl Iterator<Item = Case> {
    type Replace = fn(&Store, &Path);
    let kinds: [(&str, Replace); 8] = [
        ("a link to the same bytes outside", |store, path| {
            let target = store.outside("moved");
            if fs::rename(path, &target).is_err() {
                fs::write(&target, b"").unwrap();
            }
            symlink(&target, path).unwrap();
        }),
        ("a dangling link", |store, path| {
            remove(path);
            symlink(store.outside("new"), path).unwrap();
        }),
        ("a link to itself", |_, path| {
            remove(path);
            symlink(path, path).unwrap();
        }),
        ("a link to /dev/zero", |_, path| {
            remove(path);
            symlink("/dev/zero", path).unwrap();
        }),
        ("a FIFO", |_, path| {
            remove(path);
            let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
            assert!(made.success());
        }),
        ("a socket", |_, path| {
            remove(path);
            // A socket's path is short, so it is bound by a name relative to a short link.
            let link = Path::new("/tmp").join(format!("evil-{}", std::process::id()));
            symlink(path.parent().unwrap(), &link).unwrap();
            UnixListener::bind(link.join(path.file_name().unwrap())).unwrap();
            fs::remove_file(link).unwrap();
        }),
        ("a directory", |_, path| {
            if !path.ends_with("1") {
                remove(path);
                fs::create_dir(path).unwrap();
            }
        }),
        ("an empty file", |_, path| {
            remove(path);
            fs::write(path, b"").unwrap();
            set_mode(path, 0o600);
        }),
    ];
    kinds.into_iter().flat_map(|(kind, replace)| {
        LOOKED_AT
            .into_iter()
            .map(move |what| case(format!("{what}: {kind}"), move |s| replace(s, &named(s, what))))
    })
}

/// Files that are what they should be, somewhere else.
fn moved() -> Vec<Case> {
    let swap = |a: PathBuf, b: PathBuf| {
        let aside = a.with_extension("aside");
        fs::rename(&a, &aside).unwrap();
        fs::rename(&b, &a).unwrap();
        fs::rename(&aside, &b).unwrap();
    };
    let from_the_other_log = |store: &Store, name: &str| {
        fs::copy(store.path(&format!("2/{name}")), store.path(&format!("1/{name}"))).unwrap();
    };
    vec![
        case("two segments swapped", move |s| swap(s.segment(0), s.segment(1))),
        case("the last two segments swapped", move |s| {
            swap(s.segment(s.bases.len() - 2), s.segment(s.bases.len() - 1));
        }),
        case("two indexes swapped", move |s| swap(s.beside(0, "index"), s.beside(1, "index"))),
        case("index and time index swapped", move |s| {
            swap(s.beside(0, "index"), s.beside(0, "time"));
        }),
        case("an index of another log", move |s| {
            from_the_other_log(s, &format!("{:020}.index", s.bases[0]));
        }),
        case("a time index of another log", move |s| {
            from_the_other_log(s, &format!("{:020}.time", s.bases[0]));
        }),
        case("a segment of another log", move |s| {
            from_the_other_log(s, &format!("{:020}.log", s.bases[1]));
        }),
        case("the last segment of another log", move |s| {
            from_the_other_log(s, &format!("{:020}.log", s.bases[s.bases.len() - 1]));
        }),
        case("a manifest of another log", move |s| from_the_other_log(s, "manifest")),
        killed("a live page of another log", move |s| from_the_other_log(s, "live")),
        case("a segment twice, far behind the end", |s| {
            fs::copy(s.segment(0), s.path(&format!("1/{:020}.log", 1_000_000))).unwrap();
        }),
        case("a segment twice, between others", |s| {
            fs::copy(s.segment(0), s.path(&format!("1/{:020}.log", s.bases[1] + 1))).unwrap();
        }),
        killed("a segment twice, behind the end after a kill", |s| {
            fs::copy(s.segment(0), s.path(&format!("1/{:020}.log", 1_000_000))).unwrap();
        }),
        case("a segment with a second name outside", |s| {
            fs::hard_link(s.segment(1), s.outside("second")).unwrap();
        }),
        case("a segment with a second name inside", |s| {
            fs::hard_link(s.segment(1), s.path("1/second")).unwrap();
        }),
        case("a manifest with a second name outside", |s| {
            fs::hard_link(s.path("1/manifest"), s.outside("second")).unwrap();
        }),
        case("a log inside of itself", |s| symlink("../1", s.path("1/1")).unwrap()),
        case("all segments gone", |s| (0..s.bases.len()).for_each(|n| remove(&s.segment(n)))),
        killed("all segments gone after a kill", |s| {
            (0..s.bases.len()).for_each(|n| remove(&s.segment(n)));
        }),
        case("everything gone but the segments", |s| {
            for entry in fs::read_dir(s.path("1")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|extension| extension != "log") {
                    remove(&path);
                }
            }
        }),
        case("two segments are one file", |s| {
            remove(&s.segment(1));
            fs::hard_link(s.segment(0), s.segment(1)).unwrap();
        }),
    ]
}

/// Names that no version of the engine gives.
fn strange() -> Vec<Case> {
    let plant = |s: &Store, name: &[u8]| {
        fs::write(s.path("1").join(OsStr::from_bytes(name)), b"planted").unwrap();
    };
    let mut cases = vec![
        case("names with every byte", move |s| {
            for byte in (1..=255).filter(|byte| *byte != b'/') {
                plant(s, &[b'0', byte, b'0', b'.', b'l', b'o', b'g']);
                plant(s, &[b"0000000000000000000".as_slice(), &[byte], b".lo"].concat());
            }
        }),
        case("directories with every byte, in the store", |s| {
            for byte in (1..=255).filter(|byte| *byte != b'/') {
                fs::create_dir(s.path("").join(OsStr::from_bytes(&[b'7', byte]))).unwrap();
            }
        }),
        case("a thousand temporary files", move |s| {
            (0..1000).for_each(|n| plant(s, format!("{n}.tmp").as_bytes()));
        }),
        case("a temporary file that is a directory", |s| {
            fs::create_dir(s.path("1/manifest.tmp")).unwrap();
        }),
        case("a temporary file that is a link", |s| {
            symlink(s.outside("canary"), s.path("1/manifest.tmp")).unwrap();
        }),
        case("a name of 255 bytes", move |s| plant(s, &[b'9'; 255])),
        case("a quarantine that is full of links", |s| {
            fs::create_dir(s.path("1/quarantine")).unwrap();
            for n in 0..50 {
                let name = format!("1/quarantine/{n:020}-1.log");
                symlink(s.outside("canary"), s.path(&name)).unwrap();
            }
        }),
    ];
    let segments = [
        "18446744073709551615.log",
        "99999999999999999999.log",
        "-0000000000000000001.log",
        "+0000000000000000061.log",
        "0.log",
        "000000000000000000000.log",
        "00000000000000000000.LOG",
        "00000000000000000000.log.log",
        " 0000000000000000061.log",
        "٠٠٠٠٠٠٠٠٠٠.log",
        ".log",
        "00000000000000000070.log",
    ];
    cases.extend(segments.into_iter().map(|name| {
        case(format!("a segment called {name:?}"), move |s| plant(s, name.as_bytes()))
    }));
    cases
}

fn modes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (mode, what) in [(0o644, "readable"), (0o666, "writable"), (0o4600, "setuid")] {
        for file in ["first segment", "manifest", "live"] {
            cases.push(case(format!("{file}: {what} by all or more ({mode:o})"), move |s| {
                set_mode(&named(s, file), mode);
            }));
        }
    }
    for mode in [0o755, 0o777, 0o1777] {
        cases.push(case(format!("the log's directory with mode {mode:o}"), move |s| {
            set_mode(&s.path("1"), mode);
        }));
    }
    cases
}
