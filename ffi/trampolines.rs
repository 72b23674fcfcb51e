//! Exports the functions that are defined in C.
//!
//! From a shared library built by Rust, the linker exports only symbols that Rust defines. So each
//! of these names is a naked Rust function that jumps to the C one. It has no stack frame:
//! arguments, variable ones too, stay where the caller put them, and a longjmp skips no Rust frame.

/// One jump. `$target` is the C function. `processors` refuses processors without one.
///
/// Callers get here by an indirect jump. OpenBSD kills a process that jumps so to anything but a
/// landing pad: endbr64, or on aarch64 "bti c", which is hint 34. Other systems take these for no
/// operation.
macro_rules! jump {
    ($name:ident, $target:ident) => {
        #[doc = concat!("Defined in C: `", stringify!($target), "`.")]
        ///
        /// # Safety
        /// As its C declaration says.
        #[unsafe(naked)]
        #[no_mangle]
        pub unsafe extern "C" fn $name() {
            extern "C" {
                fn $target();
            }
            #[cfg(target_arch = "x86_64")]
            std::arch::naked_asm!("endbr64", "jmp {}", sym $target);
            #[cfg(target_arch = "aarch64")]
            std::arch::naked_asm!("hint #34", "b {}", sym $target);
            #[cfg(target_arch = "riscv64")]
            std::arch::naked_asm!("tail {}", sym $target);
            // A caller outside of the library enters here with the address in r12 and its own TOC
            // in r2. The code after `.localentry`, and the C function's local entry, expect the
            // library's TOC in r2.
            #[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
            std::arch::naked_asm!(
                "0: addis 2, 12, .TOC.-0b@ha",
                "addi 2, 2, .TOC.-0b@l",
                concat!(".localentry ", stringify!($name), ", .-0b"),
                "b {}",
                sym $target
            );
            #[cfg(target_arch = "s390x")]
            std::arch::naked_asm!("jg {}", sym $target);
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/trampolines.rs"));

// Only where code can be read: OpenBSD maps it for execution only.
#[cfg(all(test, target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    #[test]
    fn jumps_to_c_begin_with_a_landing_pad() {
        let pad = if cfg!(target_arch = "x86_64") { 0xfa1e_0ff3_u32 } else { 0xd503_245f };
        for jump in [super::logmsg as unsafe extern "C" fn(), super::parse_error] {
            // SAFETY: the code of a function is at least one instruction and a jump long.
            let first = unsafe { (jump as *const u32).read_unaligned() };
            assert_eq!(u32::from_le(first), pad);
        }
    }
}
