//! The TLS policy for all programs in the system's openssl.cnf (config(5), SSL_CONF_cmd(3)).

use openssl_sys as ffi;
use std::ffi::{c_char, c_int, c_long, c_void, CStr};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

/// Which settings the system's policy makes, so that our defaults must not replace them. OpenSSL
/// applies the values to every new context, so we need not know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// It sets the cipher suites of TLS 1.2.
    pub ciphers: bool,
    /// It sets the cipher suites of TLS 1.3.
    pub cipher_suites: bool,
    /// It sets the groups.
    pub groups: bool,
    /// It pads records.
    pub padding: bool,
}

impl Policy {
    fn add(&mut self, name: &str, value: &str) {
        // RHEL writes TLS.MinProtocol.
        let name = name.split_once('.').map_or(name, |(_, name)| name);
        match name.to_ascii_lowercase().as_str() {
            // DEFAULT@SECLEVEL=2, which some systems set, names no cipher.
            "cipherstring" => {
                let mut parts = value.split([':', ',', ' ']);
                self.ciphers |= parts.any(|part| {
                    let name = part.split('@').next().unwrap_or_default();
                    !name.is_empty() && name != "DEFAULT"
                });
            }
            "ciphersuites" => self.cipher_suites = true,
            "groups" | "curves" => self.groups = true,
            "recordpadding" => self.padding = value.trim() != "0",
            _ => {}
        }
    }
}

/// The policy, read once: OpenSSL does not follow later changes either.
pub fn policy() -> Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    *POLICY.get_or_init(|| read(None))
}

/// CONF_VALUE
#[repr(C)]
struct Value {
    section: *const c_char,
    name: *const c_char,
    value: *const c_char,
}

/// Reads a configuration file as OpenSSL does when it starts; `None` for OpenSSL's own. A file that
/// cannot be read sets nothing.
fn read(file: Option<&CStr>) -> Policy {
    extern "C" {
        // OPENSSL_config(3), NCONF_new(3)
        fn CONF_get1_default_config_file() -> *mut c_char;
        fn CRYPTO_free(memory: *mut c_void, file: *const c_char, line: c_int);
        fn NCONF_new(method: *mut c_void) -> *mut c_void;
        fn NCONF_free(configuration: *mut c_void);
        fn NCONF_load(configuration: *mut c_void, file: *const c_char, line: *mut c_long) -> c_int;
        fn NCONF_get_string(
            configuration: *const c_void,
            section: *const c_char,
            name: *const c_char,
        ) -> *const c_char;
        fn NCONF_get_section(
            configuration: *const c_void,
            section: *const c_char,
        ) -> *const ffi::OPENSSL_STACK;
    }
    let mut policy = Policy::default();
    // SAFETY: strings of the configuration live as long as it does; the configuration and the file
    // name are freed once, and nothing of either is used afterwards. A section is a stack of
    // CONF_VALUE.
    unsafe {
        let default = match file {
            Some(_) => null_mut(),
            None => CONF_get1_default_config_file(),
        };
        let name = file.map_or(default.cast_const(), CStr::as_ptr);
        let configuration = NCONF_new(null_mut());
        let mut line = 0;
        if !name.is_null()
            && !configuration.is_null()
            && NCONF_load(configuration, name, &mut line) > 0
        {
            let mut section = null();
            for key in [c"openssl_conf", c"ssl_conf", c"system_default"] {
                section = NCONF_get_string(configuration, section, key.as_ptr());
                if section.is_null() {
                    break;
                }
            }
            if !section.is_null() {
                let values = NCONF_get_section(configuration, section);
                // The length is -1 if there is no section.
                for index in 0..ffi::OPENSSL_sk_num(values) {
                    let value = ffi::OPENSSL_sk_value(values, index).cast::<Value>();
                    let text = |text| CStr::from_ptr(text).to_string_lossy();
                    policy.add(&text((*value).name), &text((*value).value));
                }
            }
        }
        NCONF_free(configuration);
        CRYPTO_free(default.cast(), c"".as_ptr(), 0);
    }
    drop(openssl::error::ErrorStack::get());
    policy
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn of(section: &str) -> Policy {
        let path = std::env::temp_dir().join(format!(
            "tcprelay-policy-{}-{:p}.cnf",
            std::process::id(),
            section.as_ptr()
        ));
        let text = format!(
            "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n[all]\n{section}"
        );
        std::fs::write(&path, text).unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let policy = read(Some(&name));
        std::fs::remove_file(path).unwrap();
        policy
    }

    #[test]
    fn what_the_system_says_is_known() {
        assert_eq!(read(Some(c"/nonexistent")), Policy::default());
        assert_eq!(of("MinProtocol = TLSv1.3\n"), Policy::default());
        assert_eq!(of("CipherString = DEFAULT@SECLEVEL=2\n"), Policy::default());
        assert_eq!(of("CipherString = DEFAULT:@SECLEVEL=1\n"), Policy::default());
        assert!(of("CipherString = @SECLEVEL=2:kEECDH:kRSA\n").ciphers);
        // The values of RHEL's crypto policies.
        let policy = of("TLS.MinProtocol = TLSv1.2\nCiphersuites = TLS_AES_256_GCM_SHA384\n\
                         TLS.Groups = P-256\nRecordPadding = 256\n");
        let expected = Policy { cipher_suites: true, groups: true, padding: true, ciphers: false };
        assert_eq!(policy, expected);
    }
}
