//! MAVIS modules: shared objects with one entry point, `Mavis_new`, which creates an object with
//! seven functions (`mavis_ctx`).
//!
//! The layout is here and not in `ffi` because we do not offer it: the relay loads and calls
//! modules as it calls the system, and a chain consists only of such objects.
//!
//! A module may do anything in its functions: call back into this library, change whatever its
//! contract allows, or crash. So nothing here holds a reference to memory that a module may write.
//! errno is 0 when a module is called, because some modules check it to see whether a number was
//! valid.

#![allow(clippy::not_unsafe_ptr_arg_deref, reason = "such pointers are passed on, not followed")]

use super::malloc::{Owned, Text};
use std::ffi::{c_char, c_int, c_void, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

/// The public head of `mavis_ctx` (144 bytes on LP64). The module's own fields follow it.
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of the C fields")]
pub struct Context {
    pub handle: *mut c_void,
    pub append: Option<unsafe extern "C" fn(*mut Context, *mut c_void) -> c_int>,
    pub init: Option<unsafe extern "C" fn(*mut Context) -> c_int>,
    pub parse: Option<unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_char) -> c_int>,
    pub send: Option<unsafe extern "C" fn(*mut Context, *mut c_void) -> c_int>,
    pub recv: Option<unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void) -> c_int>,
    pub cancel: Option<unsafe extern "C" fn(*mut Context, *mut c_void) -> c_int>,
    pub drop: Option<unsafe extern "C" fn(*mut Context) -> *mut c_void>,
    pub down: *mut Context,
    pub top: *mut Context,
    pub last_result: c_int,
    pub script_in: *mut c_void,
    pub script_out: *mut c_void,
    pub script_interim: *mut c_void,
    pub io: *mut c_void,
    pub identity_source_name: *mut c_char,
    pub identifier: *mut c_char,
    pub action_error: u32,
    pub action_notfound: u32,
}

#[cfg(all(target_pointer_width = "64", test))]
mod layout {
    use super::Context;
    use std::mem::{offset_of, size_of};

    #[test]
    fn layout_is_that_of_mavis_ctx() {
        assert_eq!(size_of::<Context>(), 144);
        assert_eq!(offset_of!(Context, down), 64);
        assert_eq!(offset_of!(Context, last_result), 80);
        assert_eq!(offset_of!(Context, script_in), 88);
        assert_eq!(offset_of!(Context, io), 112);
        assert_eq!(offset_of!(Context, identifier), 128);
        assert_eq!(offset_of!(Context, action_notfound), 140);
    }
}

/// The first module of a chain. Does not own the chain: see [`Head::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head(NonNull<Context>);

type New = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_char) -> *mut Context;

impl Head {
    /// The chain that begins with `context`; `None` for a null pointer.
    ///
    /// # Safety
    /// A pointer that is not null points to a module of a chain, and nobody uses the result after
    /// the chain has [ended](Self::end).
    pub unsafe fn from_raw(context: *mut Context) -> Option<Head> {
        NonNull::new(context).map(Head)
    }

    /// The pointer, for C code.
    pub fn as_ptr(self) -> *mut Context {
        self.0.as_ptr()
    }

    /// Loads the module in `path` and appends it to `chain`, or starts a new chain with it. `io` is
    /// the event loop's context, for modules with their own descriptors and timers, or null. The
    /// error is the loader's message.
    pub fn load(
        chain: Option<Head>,
        io: *mut c_void,
        path: &Path,
        id: Option<&str>,
    ) -> Result<Head, String> {
        let text = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        let path = text(path.as_os_str().as_bytes());
        let id = id.map(|id| text(id.as_bytes()));
        // Without an id the module uses its own name.
        let id = id.as_ref().map_or(ptr::null_mut(), |id| id.as_ptr().cast_mut());
        // SAFETY: the texts are NUL-terminated. Constructors of the shared object run, as intended;
        // dlerror(3) returns a NUL-terminated text that is valid until the next call.
        unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_GLOBAL);
            if handle.is_null() {
                return Err(loader_error());
            }
            let new = libc::dlsym(handle, c"Mavis_new".as_ptr());
            if new.is_null() {
                let error = loader_error();
                libc::dlclose(handle);
                return Err(error);
            }
            // SAFETY: the entry of every module has this type (mavis(3)).
            let new = std::mem::transmute::<*mut c_void, New>(new);
            let context = NonNull::new(new(handle, io, id)).ok_or("Mavis_new returned nothing")?;
            match chain {
                None => {
                    (*context.as_ptr()).top = context.as_ptr();
                    Ok(Head(context))
                }
                Some(head) => {
                    if let Some(append) = (*head.as_ptr()).append {
                        append(head.as_ptr(), context.as_ptr().cast());
                    }
                    Ok(head)
                }
            }
        }
    }

    /// Sets the identity source name of the last module in the chain; by default its identifier.
    pub fn name_last(self, identity: Option<&[u8]>) {
        // SAFETY: the chain is alive; its links and names belong to its modules. The old name is on
        // malloc(3)'s heap, and so is the new one, which the module frees.
        unsafe {
            let mut last = self.as_ptr();
            while !(*last).down.is_null() {
                last = (*last).down;
            }
            let name = match identity {
                Some(identity) => Text::new(identity),
                None => Text::new(super::malloc::c_bytes(&(*last).identifier)),
            };
            libc::free((*last).identity_source_name.cast());
            (*last).identity_source_name = name.into_raw();
        }
    }

    /// Calls `init`, top to bottom. 0 means success.
    pub fn init(self) -> c_int {
        // SAFETY: the chain is alive, and the function has the type that its module gave it.
        unsafe { (*self.as_ptr()).init.map_or(1, |init| init(self.as_ptr())) }
    }

    /// Lets the module called `id` read its block from `reader`, a `struct sym`. 0 means success.
    /// Does not return if the block has an error.
    pub fn parse<Reader>(self, reader: &mut Reader, id: &str) -> c_int {
        let id = CString::new(id).unwrap_or_default();
        let reader = (reader as *mut Reader).cast();
        // SAFETY: as above; the reader is a `struct sym`, and nobody else uses it meanwhile.
        unsafe {
            super::process::set_errno(0);
            let parse = (*self.as_ptr()).parse;
            parse.map_or(1, |parse| parse(self.as_ptr(), reader, id.as_ptr().cast_mut()))
        }
    }

    /// Submits a query. Afterwards either `query` still holds it, answered or not, or the module
    /// has taken it and `query` is empty.
    pub fn send<Query>(self, query: &mut Option<Owned<Query>>) -> c_int {
        // SAFETY: as above. An optional owned value is a pointer that may be null, which the
        // module may take, free or replace by another one of the same kind.
        unsafe {
            super::process::set_errno(0);
            let send = (*self.as_ptr()).send;
            send.map_or(0, |send| send(self.as_ptr(), (query as *mut Option<Owned<Query>>).cast()))
        }
    }

    /// Fetches the answer to the query that its owner identifies by `name`.
    pub fn receive<Query>(self, answer: &mut Option<Owned<Query>>, name: *mut c_void) -> c_int {
        super::process::set_errno(0);
        let answer = (answer as *mut Option<Owned<Query>>).cast();
        // SAFETY: as for `send`; the name is not followed.
        unsafe { (*self.as_ptr()).recv.map_or(0, |receive| receive(self.as_ptr(), answer, name)) }
    }

    /// Cancels the query that its owner identifies by `name`.
    pub fn cancel(self, name: *mut c_void) -> c_int {
        // SAFETY: the chain is alive; the name is not followed.
        unsafe { (*self.as_ptr()).cancel.map_or(0, |cancel| cancel(self.as_ptr(), name)) }
    }

    /// Ends the chain.
    ///
    /// # Safety
    /// Nobody uses the chain afterwards.
    pub unsafe fn end(self) {
        // SAFETY: the chain is alive; the function returns the module's own handle, which nobody
        // needs any more.
        unsafe {
            if let Some(drop) = (*self.as_ptr()).drop {
                let handle = drop(self.as_ptr());
                if !handle.is_null() {
                    libc::dlclose(handle);
                }
            }
        }
    }
}

/// A chain that we own. It lives until the process ends unless it is [ended](Self::end): its
/// modules may still have descriptors and timers in an event loop.
#[derive(Debug, Default)]
pub struct Chain {
    head: Option<Head>,
    /// Only a chain that was started can be ended: before that, modules lack what they would free.
    started: bool,
}

impl Chain {
    /// Its first module, if any. Do not use it after the chain has ended.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Starts the modules, top to bottom. 0 means success.
    pub fn start(&mut self) -> c_int {
        self.started = true;
        self.head.map_or(0, Head::init)
    }

    /// Sets the first module, after [`Head::load`].
    pub fn set(&mut self, head: Option<Head>) {
        self.head = head;
    }

    /// Ends the chain. If its modules use an event loop, the loop must be lent to them for this.
    pub fn end(self) {
        if let (Some(head), true) = (self.head, self.started) {
            // SAFETY: everybody who used the chain got its head from this value, which is consumed.
            unsafe { head.end() };
        }
    }
}

fn loader_error() -> String {
    // SAFETY: dlerror(3) gives a NUL-terminated text that is good until the next call, or null.
    unsafe {
        let text = libc::dlerror();
        String::from_utf8_lossy(super::malloc::c_bytes(&text)).into_owned()
    }
}

/// The folder where modules are installed, without a trailing slash.
pub const DIRECTORY: &str = match option_env!("MAVIS_DIR") {
    Some(directory) => directory,
    None => "/usr/local/lib/mavis",
};

/// A name for a query that only its owner can interpret.
pub fn opaque(number: usize) -> *mut c_void {
    ptr::without_provenance_mut(number)
}
