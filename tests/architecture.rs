//! What a reader relies on, checked against the source: files import in one direction, rooms are small, lines fit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 8] = ["cli", "data", "kernels", "model", "report", "search", "serve", "train"];

/// Files that a folder may hold.
const MOST_FILES: usize = 14;

/// Lines that a file may have; most have fewer than 400.
const MOST_LINES: usize = 500;

/// Columns, as in `rustfmt.toml`. rustfmt leaves longer strings and comments alone, and the expressions around them.
const MOST_COLUMNS: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every `.rs` file below `dir`.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The module path of a file below `src`, such as `["optim", "rule"]`; the crate root is empty.
fn module_of(src: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(src).unwrap().with_extension("");
    let mut module: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] || module == ["main"] {
        module.pop();
    }
    module
}

/// `text` without comments and without its test modules.
fn without_tests_and_comments(text: &str) -> String {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let tests = code.match_indices("#[cfg(").find(|(at, _)| {
        let end = code[*at..].find(']').map_or(code.len(), |end| at + end);
        let attribute = &code[*at..end];
        let item = code[end..].trim_start_matches([']', '\n', ' ']);
        let is_inline = item.find('{').is_some_and(|open| item.find(';').is_none_or(|end| open < end));
        attribute.contains("test") && item.starts_with("mod ") && is_inline
    });
    code[..tests.map_or(code.len(), |(at, _)| at)].to_owned()
}

/// The paths that a `use` tree names: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        paths.push(format!("{prefix}{path}"));
        return;
    };
    let prefix = format!("{prefix}{}", tree[..open].trim());
    let body = &tree[open + 1..tree.rfind('}').unwrap()];
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in body.char_indices().chain([(body.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !body[start..at].trim().is_empty() {
                    expand(&prefix, &body[start..at], paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Every path of `code` in `use` declarations, and those elsewhere that start with `crate`, `super` or one of
/// `children`.
fn paths_in(code: &str, children: &[&str]) -> Vec<String> {
    let (mut paths, mut rest, mut declaration) = (Vec::new(), String::new(), String::new());
    for line in code.lines() {
        let starts = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
            .into_iter()
            .find_map(|start| line.trim_start().strip_prefix(start));
        match starts {
            Some(tree) => declaration = tree.to_owned(),
            None if declaration.is_empty() => rest.push_str(line),
            None => declaration.push_str(line),
        }
        rest.push('\n');
        if let Some((tree, _)) = declaration.split_once(';') {
            expand("", &tree.split_whitespace().collect::<Vec<_>>().join(" "), &mut paths);
            declaration.clear();
        }
    }
    for start in ["crate", "super"].iter().chain(children) {
        let is_path = |at: usize| {
            let before = rest[..at].chars().next_back();
            before.is_none_or(|letter| !(letter.is_alphanumeric() || letter == '_' || letter == ':'))
        };
        for (at, _) in rest.match_indices(&format!("{start}::")).filter(|(at, _)| is_path(*at)) {
            let end = rest[at..].find(|letter: char| !(letter.is_alphanumeric() || "_:".contains(letter)));
            paths.push(rest[at..end.map_or(rest.len(), |end| at + end)].to_owned());
        }
    }
    paths
}

/// Which modules of a crate each of its modules imports from.
fn imports(crate_name: &str) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let src = root().join("crates").join(crate_name).join("src");
    let files: BTreeMap<Vec<String>, PathBuf> =
        rust_files(&src).into_iter().map(|file| (module_of(&src, &file), file)).collect();
    let mut imports = BTreeMap::new();
    for (module, file) in &files {
        if module.iter().any(|part| part == "tests") {
            continue;
        }
        let mut targets = BTreeSet::new();
        let is_child = |other: &&Vec<String>| other.len() == module.len() + 1 && other.starts_with(module);
        let children: Vec<&str> = files.keys().filter(is_child).map(|child| child[module.len()].as_str()).collect();
        for path in paths_in(&without_tests_and_comments(&fs::read_to_string(file).unwrap()), &children) {
            let mut parts: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
            let mut absolute = module.clone();
            match parts[0].as_str() {
                "crate" => absolute.clear(),
                "super" | "self" => {}
                _ if files.contains_key(&[module.as_slice(), &parts[..1]].concat()) => {
                    parts.insert(0, "self".to_owned())
                }
                _ => continue,
            }
            for part in parts {
                match part.as_str() {
                    "crate" | "self" => {}
                    "super" => _ = absolute.pop(),
                    _ => absolute.push(part),
                }
            }
            while !files.contains_key(&absolute) {
                absolute.pop();
            }
            targets.insert(absolute);
        }
        targets.remove(module);
        // Only other tests can import from tests.
        targets.retain(|target| target.iter().all(|part| part != "tests"));
        imports.insert(module.clone(), targets);
    }
    imports
}

/// The modules that import each other in a circle, or from a circle.
fn circles(mut imports: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    // A module that imports nothing is in no circle; without it, another one may be next.
    loop {
        let leaves: BTreeSet<Vec<String>> =
            imports.iter().filter(|(_, targets)| targets.is_empty()).map(|(module, _)| module.clone()).collect();
        if leaves.is_empty() {
            return imports;
        }
        imports.retain(|module, _| !leaves.contains(module));
        imports.values_mut().for_each(|targets| targets.retain(|target| !leaves.contains(target)));
    }
}

#[test]
fn no_import_circles() {
    for name in CRATES {
        let imports = imports(name);
        let edges = imports.values().map(BTreeSet::len).sum::<usize>();
        assert!(edges >= imports.len() / 2, "{name}: only {edges} imports were found in {} files", imports.len());
        let left: Vec<String> = circles(imports)
            .iter()
            .map(|(module, targets)| {
                let targets: Vec<String> = targets.iter().map(|target| target.join("::")).collect();
                format!("  {} -> {}", module.join("::"), targets.join(", "))
            })
            .collect();
        assert!(left.is_empty(), "crate {name}: these files import each other in a circle:\n{}", left.join("\n"));
    }
}

#[test]
fn finds_circles() {
    let module = |name: &str| vec![name.to_owned()];
    let imports = |edges: &[(&str, &[&str])]| {
        edges.iter().map(|(from, to)| (module(from), to.iter().map(|to| module(to)).collect())).collect()
    };
    assert!(circles(imports(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let found = circles(imports(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &[])]));
    assert_eq!(found.keys().map(|module| module[0].as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn finds_imports() {
    let code = "use crate::a::{b::C, d};\nuse super::e;\nfn f() { crate::g::h() }\nuse std::fs;";
    let mut paths = paths_in(code, &[]);
    paths.sort();
    assert_eq!(paths, ["crate::a::b::C", "crate::a::d", "crate::g::h", "std::fs", "super::e"]);
    let child = "fn f() { child::g(other::child::h()) }";
    assert_eq!(paths_in(child, &["child"]), ["child::g"]);
    let inline = "use crate::a;\n#[cfg(test)]\nmod tests {\n use crate::b;\n}";
    assert_eq!(paths_in(&without_tests_and_comments(inline), &[]), ["crate::a"]);
    let outline = "#[cfg(test)]\nmod tests;\nuse crate::a; // crate::c";
    assert_eq!(paths_in(&without_tests_and_comments(outline), &[]), ["crate::a"]);
}

#[test]
fn folders_are_small() {
    let mut folders: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for name in CRATES {
        for file in rust_files(&root().join("crates").join(name).join("src")) {
            *folders.entry(file.parent().unwrap().to_owned()).or_default() += 1;
        }
    }
    folders.retain(|_, files| *files > MOST_FILES);
    assert!(folders.is_empty(), "more than {MOST_FILES} files: {folders:?}");
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for file in rust_files(&root().join("crates")).into_iter().chain(rust_files(&root().join("tests"))) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        if lines > MOST_LINES {
            long.push(format!("{}: {lines} lines", file.display()));
        }
    }
    assert!(long.is_empty(), "more than {MOST_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn lines_fit() {
    let mut long = Vec::new();
    for file in rust_files(&root().join("crates")).into_iter().chain(rust_files(&root().join("tests"))) {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if line.chars().count() > MOST_COLUMNS {
                long.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "{} lines are longer than {MOST_COLUMNS} columns:\n{}", long.len(), long.join("\n"));
}

/// The files that may hold `unsafe` code, each with what it does there.
const UNSAFE: [(&str, &str); 25] = [
    ("crates/data/src/dataset/columns/mapped_file.rs", "maps a file into memory"),
    ("crates/data/tests/limits.rs", "counts what the allocator hands out, to test limits of memory"),
    ("crates/kernels/src/cpu/bf16/amx.rs", "multiplies by instructions that the compiler does not know"),
    ("crates/kernels/src/cpu/bf16/avx512.rs", "multiplies by instructions that not every processor has"),
    ("crates/kernels/src/cpu/bf16/product.rs", "as `uninit.rs`, for blocks of rows and columns"),
    ("crates/kernels/src/cpu/bf16/row_sums/amx.rs", "as `amx.rs`, for sums over rows"),
    ("crates/kernels/src/cpu/bf16/row_sums/sums.rs", "as `uninit.rs`, for blocks of columns"),
    ("crates/kernels/src/cpu/bf16/weights.rs", "as `uninit.rs`, for tiles"),
    ("crates/kernels/src/cpu/gemm.rs", "hands checked views to the product of the `gemm` crate, which takes pointers"),
    ("crates/kernels/src/cpu/malloc.rs", "changes two settings of the C library"),
    ("crates/kernels/src/cpu/product/by_columns.rs", "as `uninit.rs`, for panels of columns"),
    ("crates/kernels/src/cpu/product/output.rs", "marks columns as initialised that have been written"),
    ("crates/kernels/src/cpu/product/panels.rs", "as `uninit.rs`, for rows of all strips"),
    ("crates/kernels/src/cpu/product/prefetch.rs", "asks the processor to read ahead"),
    ("crates/kernels/src/cpu/product/row_sums.rs", "as `uninit.rs`, for panels of columns"),
    ("crates/kernels/src/cpu/product/rows.rs", "as `uninit.rs`, for panels of columns"),
    (
        "crates/kernels/src/cpu/product/tile.rs",
        "reads values of both factors, the last of which was checked to be there",
    ),
    ("crates/kernels/src/cpu/uninit.rs", "marks memory as initialised after every value is written"),
    ("crates/kernels/src/cube/cublas/library.rs", "loads NVIDIA's cuBLASLt and describes products to it"),
    ("crates/kernels/src/cube/cublas/queue.rs", "queues products, with addresses that CubeCL hands out"),
    ("crates/kernels/src/cube/launch/columns.rs", "as `launch.rs`, for columns side by side"),
    ("crates/kernels/src/cube/launch/many.rs", "as `launch.rs`, for many parameters at once"),
    ("crates/kernels/src/cube/launch.rs", "launches kernels that check no bounds, with the shapes they compute for"),
    ("crates/search/src/mapping.rs", "maps a file into memory"),
    ("crates/train/benches/speed/roofs.rs", "calls the product of the `gemm` crate, to measure it"),
];

#[test]
fn unsafe_is_in_named_files_only() {
    // In two parts, because this file is searched too.
    let keyword = concat!("un", "safe");
    let is_word =
        |line: &str| line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == keyword);
    let mut found = Vec::new();
    for file in rust_files(&root().join("crates")).into_iter().chain(rust_files(&root().join("tests"))) {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let quoted = name == "tests/architecture.rs";
        if !quoted && text.lines().map(|line| line.split("//").next().unwrap_or_default()).any(is_word) {
            found.push(name.clone());
            let blocks = text.matches(&format!("{keyword} {{")).count();
            let reasons = text.matches("// SAFETY: ").count() + text.matches("/// # Safety").count();
            assert!(reasons >= blocks, "{name}: {blocks} blocks, {reasons} reasons");
            assert!(text.contains("unsafe_code, reason = "), "{name}");
        }
    }
    assert_eq!(found, UNSAFE.map(|(name, _)| name), "files with {keyword} code");
}

/// Every path of the repository that a document names in backticks, such as `tests/resume.rs`.
fn named_paths(text: &str) -> Vec<String> {
    let spans = text.split('`').skip(1).step_by(2);
    let starts = ["crates/", "tests/", "scripts/", "configs/", "docs/", "data/tiny"];
    let is_path = |span: &&str| {
        starts.iter().any(|start| span.starts_with(start))
            && span.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter))
    };
    spans.filter(is_path).map(str::to_owned).collect()
}

#[test]
fn documents_name_existing_paths() {
    let mut documents: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .into_iter()
        .chain(["scripts/README.md", "tests/goldens/README.md"])
        .map(|name| root().join(name))
        .collect();
    documents.extend(CRATES.map(|name| root().join(format!("crates/{name}/README.md"))));
    documents.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let (mut missing, mut found) = (Vec::new(), 0);
    for document in documents.iter().filter(|document| document.extension().is_some_and(|kind| kind == "md")) {
        let text = fs::read_to_string(document).unwrap_or_else(|error| panic!("{}: {error}", document.display()));
        for path in named_paths(&text) {
            found += 1;
            if !root().join(&path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(found > 50, "only {found} paths were found");
    assert!(missing.is_empty(), "these documents name paths that do not exist:\n{}", missing.join("\n"));
}
