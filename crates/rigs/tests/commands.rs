//! A command that a page tells the reader to type speaks of packages, targets, tests, recipes and settings that are there. Those
//! that are quick are run by docs/try.sh and .ci/run; this is for the others, some of which take an hour.
#![expect(clippy::disallowed_methods, reason = "it reads the sources, not a store")]

use std::fs;
use std::path::{Path, PathBuf};

const PROGRAMS: &[&str] = &["cargo", "just"];

/// The files below `dir` whose names end so, but for what was built.
fn files(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != ".git" {
            files(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

/// The settings before a command, and its words up to a comment or the next command.
fn parts(command: &str) -> (Vec<&str>, Vec<&str>) {
    let mut words = command.split_whitespace().peekable();
    let mut settings = Vec::new();
    // A value in quotation marks may have spaces in it.
    let has_one_mark = |word: &str| word.matches('"').count() == 1;
    while let Some(setting) = words.next_if(|word| word.contains('=')) {
        if has_one_mark(setting) {
            words.by_ref().find(|word| has_one_mark(word));
        }
        settings.extend(setting.split('=').next());
    }
    (settings, words.take_while(|word| !["#", "&&", "|"].contains(word)).collect())
}

/// What the commands may speak of.
struct Tree {
    root: PathBuf,
    manifests: Vec<(PathBuf, String)>,
    sources: String,
    recipes: String,
    steps: String,
}

impl Tree {
    fn read() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
        let (mut manifests, mut sources) = (Vec::new(), Vec::new());
        files(&root, "Cargo.toml", &mut manifests);
        files(&root, ".rs", &mut sources);
        // This file speaks of what is not there.
        sources.retain(|path| !path.ends_with("rigs/tests/commands.rs"));
        Tree {
            manifests: manifests.iter().map(|path| (path.clone(), text(path))).collect(),
            sources: sources.iter().map(text).collect(),
            recipes: text(&root.join("justfile")),
            steps: text(&root.join(".ci/run")) + &text(&root.join(".ci/torture")),
            root,
        }
    }

    /// The directory of a package.
    fn package(&self, name: &str) -> Option<&Path> {
        // A binary may have the name of another package.
        let begins = format!("[package]\nname = \"{name}\"\n");
        let found = self.manifests.iter().find(|(_, text)| text.contains(&begins));
        found.and_then(|(path, _)| path.parent())
    }

    /// What is wrong with `command`, as far as somebody can say who does not run it.
    fn fault(&self, command: &str) -> Option<String> {
        let (settings, words) = parts(command);
        let is_read = |name: &str| self.sources.contains(name) || self.steps.contains(name);
        let mut ours = settings.iter().filter(|name| name.starts_with("LOGMILL_"));
        if let Some(name) = ours.find(|name| !is_read(name)) {
            return Some(format!("nobody reads {name}"));
        }
        match words.split_first()? {
            (&"just", arguments) => self.recipe_fault(arguments),
            (&"cargo", arguments) => self.cargo_fault(arguments),
            (script, arguments) if script.ends_with(".ci/run") => arguments
                .iter()
                .find(|step| !self.steps.contains(&format!("step_{step}()")))
                .map(|step| format!(".ci/run has no step {step}")),
            (script, _) => (!self.root.join(script).exists()).then(|| format!("no {script}")),
        }
    }

    fn recipe_fault(&self, arguments: &[&str]) -> Option<String> {
        let (recipe, arguments) = arguments.split_first()?;
        let begins =
            |line: &str| line.strip_prefix(recipe).is_some_and(|rest| rest.starts_with([':', ' ']));
        if !self.recipes.lines().any(begins) {
            return Some(format!("the justfile has no recipe {recipe}"));
        }
        (*recipe == "bench-compare").then(|| self.comparison_fault(arguments)).flatten()
    }

    /// Arguments of the comparison with rivals, which is a workspace of its own and takes long to build.
    fn comparison_fault(&self, arguments: &[&str]) -> Option<String> {
        let place = self.root.join("benches/compare/src");
        let (main, growth) = (place.join("main.rs"), place.join("growth.rs"));
        let known = fs::read_to_string(main).unwrap() + &fs::read_to_string(growth).unwrap();
        arguments
            .iter()
            .find(|argument| !known.contains(&format!("\"{argument}\"")))
            .map(|argument| format!("benches/compare knows no {argument}"))
    }

    fn cargo_fault(&self, arguments: &[&str]) -> Option<String> {
        let end = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
        let (own, inner) = arguments.split_at(end);
        let values = |names: &[&str]| -> Vec<&str> {
            let pairs = own.windows(2).filter(|pair| names.contains(&pair[0]));
            pairs.map(|pair| pair[1]).collect()
        };
        let packages = values(&["-p", "--package"]);
        if let Some(absent) = packages.iter().find(|name| self.package(name).is_none()) {
            return Some(format!("no package {absent}"));
        }
        for (option, place) in
            [("--test", "tests"), ("--example", "examples"), ("--bench", "benches")]
        {
            for target in values(&[option]) {
                let is_there = packages.iter().filter_map(|name| self.package(name)).any(|dir| {
                    let dir = dir.join(place);
                    dir.join(format!("{target}.rs")).is_file() || dir.join(target).is_dir()
                });
                if !is_there {
                    return Some(format!("{packages:?} has no {option} {target}"));
                }
            }
        }
        let manifest = values(&["--manifest-path"]);
        if let Some(path) = manifest.first()
            && !self.root.join(path).is_file()
        {
            return Some(format!("no {path}"));
        }
        let inner: Vec<&str> = inner.iter().copied().filter(|word| *word != "--").collect();
        if manifest == ["benches/compare/Cargo.toml"] {
            return self.comparison_fault(&inner);
        }
        let filter = |word: &&&str| !word.starts_with('-') && !self.sources.contains(**word);
        (own.first() == Some(&"test"))
            .then(|| inner.iter().find(filter))
            .flatten()
            .map(|word| format!("no test has {word} in its name"))
    }
}

/// The commands of a page: lines of its blocks, and what it quotes within a sentence.
fn commands(page: &str) -> Vec<&str> {
    let is_command = |text: &&str| {
        let (_, words) = parts(text);
        words.first().is_some_and(|program| {
            (PROGRAMS.contains(program) && words.len() > 1)
                || [".ci/", "scripts/"].iter().any(|place| program.starts_with(place))
        })
    };
    let mut found = Vec::new();
    for (number, part) in page.split("```").enumerate() {
        match number % 2 {
            0 => found.extend(part.split('`').skip(1).step_by(2).filter(is_command)),
            _ => found.extend(part.lines().skip(1).filter(is_command)),
        }
    }
    found
}

#[test]
fn every_command_in_the_pages_speaks_of_what_is_there() {
    let tree = Tree::read();
    let mut pages = Vec::new();
    files(&tree.root.join("docs"), ".md", &mut pages);
    pages.extend(
        ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(|name| tree.root.join(name)),
    );
    let mut count = 0;
    for path in pages {
        let page = fs::read_to_string(&path).unwrap();
        for command in commands(&page) {
            count += 1;
            let fault = tree.fault(command);
            assert_eq!(fault, None, "{}: `{command}`", path.display());
        }
    }
    assert!(count > 30, "{count} commands: they are not recognised any more");
}

#[test]
fn a_command_that_speaks_of_what_is_not_there_is_found_out() {
    let tree = Tree::read();
    for (command, fault) in [
        ("just bench-contrast", "no recipe bench-contrast"),
        ("just bench-compare append sinked", "knows no sinked"),
        ("cargo run --manifest-path benches/compare/Cargo.toml -- --growth hair", "knows no hair"),
        ("cargo test -p logmill-storrage", "no package logmill-storrage"),
        ("cargo run -p logmill-benches --example awaitet # slow", "no --example awaitet"),
        ("LOGMILL_KILLZ=3 .ci/run kill", "nobody reads LOGMILL_KILLZ"),
        ("RUSTFLAGS=\"-C a -C b\" .ci/run kil", "no step kil"),
        ("cargo test -p logmill --test limits -- --nocapture two_topixes", "no test has"),
        ("scripts/power-los", "no scripts/power-los"),
    ] {
        let found = tree.fault(command).unwrap_or_else(|| panic!("`{command}` passes"));
        assert!(found.contains(fault), "{command}: {found}");
    }
}
