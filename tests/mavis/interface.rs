//! The library's interface: exports, headers, token numbers.

use super::*;

/// A row of `ffi/symbols.tsv`.
struct Symbol {
    name: String,
    is_data: bool,
    size: u64,
    is_own: bool,
    signature: String,
}

fn table() -> Vec<Symbol> {
    let text = fs::read_to_string(source("ffi/symbols.tsv")).expect("the table is in the source");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, kind, size, tier, _, signature, ..] = fields[..] else {
            panic!("ffi/symbols.tsv: {line:?} lacks fields");
        };
        Symbol {
            name: name.to_owned(),
            is_data: kind != "T",
            size: size.parse().expect("a size"),
            is_own: tier == "own",
            signature: signature.to_owned(),
        }
    };
    text.lines().skip(1).map(row).collect()
}

/// The names in a symbol table, without versions, each with its kind: the last two columns of nm.
fn dynamic_symbols(file: &Path, option: &str) -> BTreeMap<String, String> {
    let text = tool(Command::new("nm").args(["-D", option]).arg(file));
    let entry = |line: &str| {
        let mut fields = line.split_whitespace().rev();
        let name = fields.next()?.split('@').next()?.to_owned();
        Some((name, fields.next()?.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

#[test]
fn exports_are_those_of_the_table() {
    let file = library().join("libmavis.so");
    let found = dynamic_symbols(&file, "--defined-only");
    let mut sizes = BTreeMap::new();
    for line in tool(Command::new("readelf").args(["--dyn-syms", "-W"]).arg(&file)).lines() {
        // Columns: number, value, size, type, binding, visibility, section, name.
        if let [_, _, size, kind, _, _, _, name, ..] =
            line.split_whitespace().collect::<Vec<_>>()[..]
        {
            let size = size.strip_prefix("0x").map_or_else(
                || size.parse().unwrap_or(0),
                |digits| u64::from_str_radix(digits, 16).unwrap_or(0),
            );
            let name = name.split('@').next().unwrap_or(name).to_owned();
            sizes.insert(name, (kind.to_owned(), size));
        }
    }
    let mut differences = String::new();
    let table: Vec<Symbol> = table().into_iter().filter(|s| !(s.is_own && is_original())).collect();
    for symbol in &table {
        let Symbol { name, is_data, size, .. } = symbol;
        let Some(kind) = found.get(name) else {
            writeln!(differences, "{name} is not exported").unwrap();
            continue;
        };
        let is_kind = if *is_data { "BDRV".contains(&**kind) } else { "TW".contains(&**kind) };
        if !is_kind {
            writeln!(differences, "{name} is of kind {kind}").unwrap();
        }
        let (kind, actual) = &sizes[name];
        if kind != if *is_data { "OBJECT" } else { "FUNC" } {
            writeln!(differences, "{name} is of type {kind}").unwrap();
        }
        if *is_data && actual != size {
            writeln!(differences, "{name} has {actual} bytes and not {size}").unwrap();
        }
    }
    for name in found.keys().filter(|name| !table.iter().any(|symbol| symbol.name == **name)) {
        writeln!(differences, "{name} is exported and not in the table").unwrap();
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn every_export_is_used_by_a_test() {
    let mut used = BTreeSet::new();
    for name in PROGRAMS.iter().chain(&["driver"]) {
        program(name).unwrap_or_else(|message| panic!("{message}"));
    }
    for entry in fs::read_dir(built()).expect("there are programs") {
        let path = entry.expect("a directory can be read").path();
        if path.is_file() && path.extension().is_none_or(|extension| extension == "so") {
            // A copy relocation puts data into the program itself, so it is defined there as well.
            used.extend(dynamic_symbols(&path, "-g").into_keys());
        }
    }
    let unused: Vec<String> = table()
        .into_iter()
        .filter(|symbol| !symbol.is_own && !used.contains(&symbol.name))
        .map(|symbol| symbol.name)
        .collect();
    assert!(unused.is_empty(), "no test uses {unused:?}");
}

/// The headers, by the names to include.
fn headers() -> Vec<String> {
    let mut names = Vec::new();
    for directory in ["mavis", "misc"] {
        let path = source("compat/include").join(directory);
        for entry in fs::read_dir(path).expect("there are headers") {
            let name = entry.expect("a directory can be read").file_name();
            names.push(format!("{directory}/{}", name.to_string_lossy()));
        }
    }
    names.sort();
    names
}

#[test]
fn each_header_compiles_alone() {
    let compilers: &[(&str, &[&str])] = &[
        ("cc", &["-x", "c", "-std=gnu11"]),
        ("cc", &["-x", "c", "-std=c99", "-D_POSIX_C_SOURCE=200809L"]),
        ("clang", &["-x", "c", "-std=gnu99"]),
        ("c++", &["-x", "c++", "-std=c++98"]),
        ("c++", &["-x", "c++", "-std=c++17"]),
        ("clang++", &["-x", "c++", "-std=c++11"]),
    ];
    let file = scratch().join("header.txt");
    for header in headers() {
        let text = format!("#define MAVIS_NAME \"x\"\n#include <{header}>\n#include <{header}>\n");
        fs::write(&file, text).expect("a source can be written");
        for (compiler, options) in compilers {
            if !has_tool(compiler) {
                continue;
            }
            let mut command = Command::new(compiler);
            command.args(*options).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
            command.arg("-fsyntax-only").arg("-I").arg(source("compat/include"));
            tool(command.arg(&file));
        }
    }
}

#[test]
fn headers_declare_what_the_table_says() {
    // Declaring a function a second time fails to compile if the types differ.
    let mut text = String::new();
    for header in headers().iter().filter(|name| *name != "mavis/module.h") {
        writeln!(text, "#include <{header}>").unwrap();
    }
    text += "typedef struct ssl_st SSL;\n";
    for symbol in table().iter().filter(|symbol| !symbol.signature.starts_with('-')) {
        let storage = if symbol.is_data { "extern " } else { "" };
        writeln!(text, "{storage}{};", symbol.signature).unwrap();
    }
    // Taking each address proves that there was a first declaration.
    text += "void *all_of_them[] = {\n";
    for symbol in table() {
        writeln!(text, "(void *)&{},", symbol.name).unwrap();
    }
    text += "};\n";
    let file = scratch().join("declarations.txt");
    fs::write(&file, text).expect("a source can be written");
    tool(cc().args(["-x", "c", "-fsyntax-only"]).arg(file));

    let read = |name: &String| fs::read_to_string(source("compat/include").join(name));
    let all: String = headers().iter().map(|name| read(name).expect("a header")).collect();
    for symbol in table() {
        assert_eq!(declarations(&all, &symbol.name), 1, "declarations of {}", symbol.name);
    }
}

/// How many lines of a header declare this name. Declarations begin at the start of a line, and
/// what headers define is `static`.
fn declarations(header: &str, name: &str) -> usize {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let declares = |line: &str| {
        let is_declaration = line.starts_with(|c: char| c.is_ascii_alphabetic())
            && !line.starts_with("static")
            && !line.starts_with("MAVIS_");
        let mut places = line.match_indices(name);
        is_declaration
            && places.any(|(at, _)| {
                let after = line[at + name.len()..].chars().next();
                let before = line[..at].chars().next_back();
                !before.is_some_and(is_part) && after.is_some_and(|c| "([;)".contains(c))
            })
    };
    header.lines().filter(|line| declares(line)).count()
}

#[test]
fn token_header_is_made_from_the_table() {
    let script = source("tests/mavis/token_header.awk");
    let made = tool(Command::new("awk").arg("-f").arg(script).arg(source("ffi/tokens.tsv")));
    let header = fs::read_to_string(source("compat/include/mavis/token.h")).expect("a header");
    assert!(made == header, "compat/include/mavis/token.h is not what token_header.awk makes");
}
