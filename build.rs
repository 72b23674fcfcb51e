//! Build script: generates code from the tables of `ffi`, compiles the C side of libmavis, sets how
//! the library and the programs are linked, and, if asked to, compiles the tests' emulations of
//! other systems' event mechanisms.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn main() {
    require_openssl();
    generate_tokens();
    generate_attributes();
    generate_trampolines();
    generate_jump_buffer();
    compile_shims();
    link();
    sandbox();
    event_shims();
}

/// The lines of one of `ffi`'s tables, split at tabs, without the header.
fn table(name: &str) -> Vec<Vec<String>> {
    println!("cargo::rerun-if-changed={name}");
    let text = fs::read_to_string(name).expect("the tables are part of the source");
    text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Writes generated code to OUT_DIR; `append` adds to the output of an earlier step.
fn generated(name: &str, code: &str, append: bool) {
    let path = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join(name);
    let before = if append { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
    fs::write(path, before + code).expect("OUT_DIR is writable");
}

/// Requires OpenSSL 3.0 or later. Libraries with the same interface fail here, with a message about
/// what they lack, instead of later in the compiler or linker.
fn require_openssl() {
    let has = |name: &str| env::var_os(format!("DEP_OPENSSL_{name}")).is_some();
    let lacking = if has("LIBRESSL_VERSION_NUMBER") {
        "LibreSSL has neither the callbacks for ticket keys (SSL_CTX_set_tlsext_ticket_key_evp_cb) \
         and secrets (SSL_CTX_set_keylog_callback) nor EVP_CIPHER_fetch"
    } else if has("BORINGSSL") || has("AWSLC") {
        "BoringSSL and AWS-LC have neither SSL_CTX_set_tlsext_ticket_key_evp_cb nor \
         EVP_CIPHER_fetch"
    } else {
        let number = env::var("DEP_OPENSSL_VERSION_NUMBER").unwrap_or_default();
        match u64::from_str_radix(&number, 16) {
            Ok(number) if number < 0x3000_0000 => "this OpenSSL is older than 3.0",
            _ => return,
        }
    };
    panic!(
        "{lacking}. tcprelay needs OpenSSL 3.0 or later: set OPENSSL_DIR to one, or build with \
         --features vendored-openssl"
    );
}

/// `ffi/tokens.tsv` (number, enum name, text, length) becomes constants, the text table, and the
/// exported `codestring`.
fn generate_tokens() {
    let mut constants = String::new();
    let mut texts =
        String::from("/// Text of each reserved word, by number.\npub const TEXT: &[&str] = &[\n");
    let mut strings = String::new();
    let tokens = table("ffi/tokens.tsv");
    for (index, fields) in tokens.iter().enumerate() {
        let [number, name, text, ..] = &fields[..] else {
            panic!("ffi/tokens.tsv:{}: expected number, name and text", index + 2);
        };
        let number: usize = number.parse().expect("a token number");
        assert_eq!(number, index, "ffi/tokens.tsv: numbers are consecutive");
        writeln!(constants, "#[doc = \"`{text}`\"]\npub const {name}: Code = Code({number});")
            .unwrap();
        writeln!(texts, "    {text:?},").unwrap();
        if text.is_empty() {
            strings.push_str("    Str { text: ptr::null(), length: 0 },\n");
        } else {
            writeln!(strings, "    string(b\"{text}\\0\"),").unwrap();
        }
    }
    texts.push_str("];\n");
    generated("tokens.rs", &(constants + &texts), false);
    let code = format!(
        "/// `str_t codestring[]`: the text of each token, by number.\n#[no_mangle]\n\
         pub static codestring: [Str; {}] = [\n{strings}];\n",
        tokens.len()
    );
    generated("exported.rs", &code, false);
}

/// `ffi/attributes.tsv` (index, macro, name, token number, ...) becomes constants, the table of
/// names and tokens, and the exported `av_char`.
fn generate_attributes() {
    let mut constants = String::new();
    let mut names = String::new();
    let mut exported = String::new();
    let rows = table("ffi/attributes.tsv");
    for (index, fields) in rows.iter().enumerate() {
        let [number, name, text, token, ..] = &fields[..] else {
            panic!("ffi/attributes.tsv:{}: expected index, macro, name, token", index + 2);
        };
        assert_eq!(number.parse(), Ok(index), "ffi/attributes.tsv: indices are consecutive");
        let name = name.strip_prefix("AV_A_").expect("AV_A_NAME");
        writeln!(constants, "#[doc = \"`{text}`\"]\npub const {name}: usize = {index};").unwrap();
        writeln!(names, "    ({text:?}, {token}),").unwrap();
        writeln!(exported, "    attribute(b\"{text}\\0\", {token}),").unwrap();
    }
    let count = rows.len();
    let table = format!(
        "{constants}/// Name of each attribute and the number of its token, 0 for none.\n\
         pub const NAMES: [(&str, u32); {count}] = [\n{names}];\n"
    );
    generated("attributes.rs", &table, false);
    let head = "/// `struct av_char av_char[]`: name and token of each attribute.\n#[no_mangle]\n";
    let code = format!("{head}pub static av_char: [AvChar; {count}] = [\n{exported}];\n");
    generated("exported.rs", &code, true);
}

/// Generates a jump from the exported name to each function of `ffi/symbols.tsv` that is defined in
/// C.
fn generate_trampolines() {
    let mut jumps = String::new();
    for fields in table("ffi/symbols.tsv") {
        let [name, _kind, _size, _tier, by, ..] = &fields[..] else {
            panic!("ffi/symbols.tsv: expected symbol, kind, size, tier and by");
        };
        if by == "c" {
            writeln!(jumps, "jump!({name}, compat_{name});").unwrap();
        }
    }
    generated("trampolines.rs", &jumps, false);
}

/// The layout of jmp_buf depends on system and processor, and `struct sym` of the C ABI contains
/// one, so we ask the C compiler for its size and alignment.
fn generate_jump_buffer() {
    let (size, alignment) = (c_constant("sizeof(jmp_buf)"), c_constant("_Alignof(jmp_buf)"));
    let code = format!(
        "/// A jmp_buf of this system's C library.\n#[repr(C, align({alignment}))]\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq)]\npub struct JumpBuffer([u8; {size}]);\n\
         impl JumpBuffer {{\n/// Before C code fills it.\n\
         pub const EMPTY: JumpBuffer = JumpBuffer([0; {size}]);\n}}\n"
    );
    generated("jump_buffer.rs", &code, false);
}

/// The value of a C expression with <setjmp.h> on the target, at most 4096. Found by compiling
/// assertions, because programs for the target may not run here.
fn c_constant(expression: &str) -> usize {
    let file = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("constant.c");
    let is_at_most = |most: usize| {
        let text = format!(
            "#include <setjmp.h>\n_Static_assert({expression} <= {most}, \"more\");\nint unused;\n"
        );
        fs::write(&file, text).expect("OUT_DIR is writable");
        let mut command = shims().get_compiler().to_command();
        let output = command.arg("-fsyntax-only").arg(&file).output().expect("a C compiler");
        output.status.success()
    };
    assert!(is_at_most(4096), "{expression}: the C compiler does not know it");
    let (mut least, mut most) = (0, 4096);
    while least < most {
        let middle = (least + most) / 2;
        if is_at_most(middle) {
            most = middle;
        } else {
            least = middle + 1;
        }
    }
    least
}

/// Compiler settings for our C code.
fn shims() -> cc::Build {
    let mut build = cc::Build::new();
    build.define("_GNU_SOURCE", None).flag("-std=gnu11").warnings(true).pic(true);
    build
}

/// Compiles the functions that only C can define.
fn compile_shims() {
    let mut build = shims();
    build.include("compat/include");
    println!("cargo::rerun-if-changed=compat/include");
    for name in ["shims", "data", "regex"] {
        let file = format!("compat/{name}.c");
        println!("cargo::rerun-if-changed={file}");
        build.file(file);
    }
    println!("cargo::rerun-if-changed=compat/shims.h");
    build.compile("compat");
}

/// Sets the library's name for the loader, and where the programs look for it: where cargo builds
/// it, beside the programs, or in `lib/tcprelay` or `lib` beside their folder. TCPRELAY_RUN_PATH
/// replaces these paths, for packages that install the library elsewhere, or (empty) where the
/// system looks anyway.
fn link() {
    println!("cargo::rerun-if-env-changed=TCPRELAY_RUN_PATH");
    let apple = env::var("CARGO_CFG_TARGET_VENDOR").as_deref() == Ok("apple");
    let out = env::var("OUT_DIR").expect("set by cargo");
    // OUT_DIR is PROFILE/build/PACKAGE-HASH/out; the library appears in PROFILE/deps.
    let profile = Path::new(&out).ancestors().nth(3).expect("the folder of the profile");
    println!("cargo::rustc-link-arg-bins=-L{}", profile.join("deps").display());
    println!("cargo::rustc-link-arg-bins=-L{}", profile.display());
    println!("cargo::rustc-link-arg-bins=-lmavis");
    let origin = if apple {
        println!("cargo::rustc-link-arg-cdylib=-Wl,-install_name,@rpath/libmavis.dylib");
        "@loader_path"
    } else {
        println!("cargo::rustc-link-arg-cdylib=-Wl,-soname,libmavis.so");
        "$ORIGIN"
    };
    let default = || format!("{origin}/deps:{origin}/../lib/tcprelay:{origin}/../lib:{origin}");
    let paths = env::var("TCPRELAY_RUN_PATH").unwrap_or_else(|_| default());
    for path in paths.split(':').filter(|path| !path.is_empty()) {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{path}");
    }
}

/// Sets `cfg(seccomp)` for Linux on processors whose system call numbers the filter knows.
fn sandbox() {
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let known = matches!(&*target("ARCH"), "x86_64" | "aarch64")
        && target("POINTER_WIDTH") == "64"
        && target("ENDIAN") == "little";
    if known && target("OS") == "linux" {
        println!("cargo::rustc-cfg=seccomp");
    }
}

/// With TCPRELAY_EVENT_SHIMS set, builds kqueue, event ports and /dev/poll on Linux over emulations
/// of the documented system calls, so that the test suite runs all six mechanisms; socket splicing
/// runs with kqueue.
fn event_shims() {
    println!("cargo::rerun-if-env-changed=TCPRELAY_EVENT_SHIMS");
    let Some(shims) = env::var_os("TCPRELAY_EVENT_SHIMS") else {
        return;
    };
    assert_eq!(
        env::var("CARGO_CFG_TARGET_OS").as_deref(),
        Ok("linux"),
        "TCPRELAY_EVENT_SHIMS is for tests on Linux"
    );
    println!("cargo::rustc-cfg=event_shims");
    let mut build = cc::Build::new();
    build.define("_GNU_SOURCE", None).flag("-std=c11").warnings(true);
    // libkqueue, an independent emulation of kqueue, which tools/test-kernels tests with.
    let foreign = shims == "libkqueue";
    let kqueue = if foreign { "libkqueue/kqueue" } else { "kqueue" };
    for name in [kqueue, "splice", "port", "devpoll", "channel", "sandbox"] {
        let file = format!("tests/shims/{name}.c");
        println!("cargo::rerun-if-changed={file}");
        build.file(file);
    }
    println!("cargo::rerun-if-changed=tests/shims/shims.h");
    build.compile("event_shims");
    if foreign {
        println!("cargo::rerun-if-env-changed=TCPRELAY_KQUEUE_LIB");
        if let Some(folder) = env::var("TCPRELAY_KQUEUE_LIB").ok().filter(|text| !text.is_empty()) {
            println!("cargo::rustc-link-search=native={folder}");
            println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        }
        println!("cargo::rustc-link-lib=dylib=kqueue");
    }
}
