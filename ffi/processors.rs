//! Refuses to compile for processors that the library cannot run on, and says why.
//! `tools/check-targets` compiles this file alone for such processors.

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "tcprelay needs 64 bits: the structures that libmavis.so shares with modules in C were measured \
     on 64-bit systems"
);

#[cfg(all(target_arch = "powerpc64", target_endian = "big"))]
compile_error!(
    "tcprelay runs on little-endian powerpc64 only: in the big-endian ABI a function's address is \
     that of a descriptor, and the jumps of ffi/trampolines.rs do not know those"
);

#[cfg(all(
    target_pointer_width = "64",
    not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "powerpc64",
        target_arch = "s390x"
    ))
))]
compile_error!(
    "tcprelay runs on x86_64, aarch64, riscv64, powerpc64le and s390x: for another processor, \
     ffi/trampolines.rs needs its instruction for a jump"
);
