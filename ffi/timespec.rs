//! mavis/mavis.h: time specifications of tac_plus. They are in a red-black tree by their names;
//! everything is of malloc(3).
//!
//! # Safety
//! Trees came from `init_timespec`; other pointers are null or valid, and texts NUL-terminated.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::memory::put;
use super::rbnode::rbnode_alloc;
use super::rbtree::{rbtree_create, RbNode, RbTree, Tree};
use super::{bytes, guard};
use crate::library::cron::Times;
use crate::library::rbtree::Location;
use crate::library::timespec::{self, Style};
use crate::os::malloc::{allocate, Owned, Text};
use crate::os::{calendar, common_data};
use std::cmp::Ordering;
use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::mem::offset_of;
use std::ptr::{self, NonNull};

/// `struct mavis_tm`: one set of times. Bit n of a set is the value n of `struct tm`.
#[repr(C)]
pub struct MavisTm {
    next: *mut MavisTm,
    /// The specification that it comes from.
    string: *mut c_char,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

/// `struct mavis_timespec`: a name, and the times that it stands for.
#[repr(C)]
pub struct MavisTimespec {
    sets: *mut MavisTm,
    /// The specification that has matched last.
    string: *mut c_char,
    matched: c_int,
    /// When the answer expires, in seconds since 1970.
    valid_until: i64,
    /// Goes on behind the structure.
    name: [c_char; 1],
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(
    size_of::<MavisTm>() == 56
        && size_of::<MavisTimespec>() == 40
        && offset_of!(MavisTimespec, name) == 32
);

impl MavisTm {
    fn set(&mut self, times: &Times) {
        let Times { minutes, hours, days, months, weekdays } = *times;
        (self.minutes, self.hours, self.days) = (minutes, hours, days);
        (self.months, self.weekdays) = (months, weekdays);
    }

    fn times(&self) -> Times {
        let MavisTm { minutes, hours, days, months, weekdays, .. } = *self;
        Times { minutes, hours, days, months, weekdays }
    }
}

/// A specification that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrecognized {
    style: Style,
    spec: String,
}

impl fmt::Display for Unrecognized {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unrecognized { style, spec } = self;
        write!(out, "Unrecognized '{}' style time specification '{spec}'", style.name())
    }
}

/// The time specifications of a tree.
pub struct Table(Tree);

impl Table {
    /// `None` for a null pointer.
    ///
    /// # Safety
    /// The tree is null or came from `init_timespec`, and nobody else uses it as long as the result
    /// is used.
    pub unsafe fn of(tree: *mut RbTree) -> Option<Table> {
        // SAFETY: as the caller promises.
        unsafe { Tree::of(tree) }.map(Table)
    }

    fn find(&self, name: &[u8]) -> Location<NonNull<RbNode>> {
        // SAFETY: the keys of such a tree are time specifications.
        self.0.locate_by(|key| name.cmp(unsafe { name_of(key.cast()) }))
    }

    /// The time specification of that name, which is made if there is none. It matches no time
    /// until something is added to it.
    pub fn open(&mut self, name: &[u8]) -> NonNull<c_void> {
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let place = match self.find(name) {
            Location::Found(node) => {
                return NonNull::new(self.0.key(node).cast_mut()).unwrap_or(NonNull::dangling());
            }
            Location::Missing { place, .. } => place,
        };
        let start = offset_of!(MavisTimespec, name);
        let size = size_of::<MavisTimespec>().max(start + name.len() + 1);
        let memory = allocate(size, "timespec");
        // SAFETY: the memory has room for the structure and a name of that length with its NUL;
        // zeroes are a valid structure.
        unsafe { memory.add(start).as_ptr().copy_from_nonoverlapping(name.as_ptr(), name.len()) };
        if let Some(node) = NonNull::new(rbnode_alloc()) {
            // SAFETY: the node is new.
            unsafe { (*node.as_ptr()).key = memory.as_ptr().cast() };
            self.0.insert(node, place);
        }
        memory.cast()
    }

    /// Adds a specification of either style to those of a name.
    pub fn add(&mut self, name: &[u8], spec: &[u8]) -> Result<(), Unrecognized> {
        let sets = timespec::parse(spec).map_err(|_| Unrecognized {
            style: Style::of(spec),
            spec: String::from_utf8_lossy(spec).into_owned(),
        })?;
        let entry = self.open(name).cast::<MavisTimespec>().as_ptr();
        // SAFETY: `open` gives a valid structure; its sets are a list that ends with a null
        // pointer, and nobody else uses them.
        unsafe {
            (*entry).valid_until = 0;
            let mut end = &raw mut (*entry).sets;
            while !(*end).is_null() {
                end = &raw mut (**end).next;
            }
            for times in sets {
                let mut set = Owned::new(EMPTY);
                set.set(&times);
                set.string = Text::new(spec).into_raw();
                *end = set.into_raw();
                end = &raw mut (**end).next;
            }
        }
        Ok(())
    }
}

const EMPTY: MavisTm = MavisTm {
    next: ptr::null_mut(),
    string: ptr::null_mut(),
    minutes: 0,
    hours: 0,
    days: 0,
    months: 0,
    weekdays: 0,
};

/// The name of a time specification, which may have nothing but its name.
unsafe fn name_of<'a>(entry: *const MavisTimespec) -> &'a [u8] {
    // SAFETY: as the caller promises; the name goes on behind the structure. No reference to the
    // structure is made, as it may be shorter.
    unsafe { bytes((&raw const (*entry).name).cast()) }.unwrap_or_default()
}

unsafe extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    // SAFETY: the tree calls this with its keys and those that are searched.
    guard(0, || match unsafe { name_of(a.cast()).cmp(name_of(b.cast())) } {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    })
}

unsafe extern "C" fn free(entry: *const c_void) {
    let entry: *mut MavisTimespec = entry.cast_mut().cast();
    // SAFETY: the tree calls this with a key that nobody uses any more; all of it is of malloc(3),
    // and the matched specification is one of the list.
    guard((), || unsafe {
        if entry.is_null() {
            return;
        }
        let mut set = (*entry).sets;
        while !set.is_null() {
            let next = (*set).next;
            libc::free((*set).string.cast());
            libc::free(set.cast());
            set = next;
        }
        libc::free(entry.cast());
    });
}

/// `rb_tree_t *init_timespec(void)`: no time specifications yet.
#[no_mangle]
pub extern "C" fn init_timespec() -> *mut RbTree {
    rbtree_create(Some(compare), Some(free))
}

/// `struct mavis_timespec *find_timespec(rb_tree_t *timespectable, char *s)`: the one of that name,
/// or null.
#[no_mangle]
pub unsafe extern "C" fn find_timespec(
    tree: *mut RbTree,
    name: *const c_char,
) -> *mut MavisTimespec {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        let (Some(table), Some(name)) = (unsafe { (Table::of(tree), bytes(name)) }) else {
            return ptr::null_mut();
        };
        match table.find(name) {
            Location::Found(node) => table.0.key(node).cast_mut().cast(),
            Location::Missing { .. } => ptr::null_mut(),
        }
    })
}

/// `int eval_timespec(struct mavis_timespec *ts, char **s)`: not 0 if the local time of `io_now` is
/// in one of the sets; `*s` is the specification it comes from, or null. The answer holds for the
/// minute.
#[no_mangle]
pub unsafe extern "C" fn eval_timespec(entry: *mut MavisTimespec, text: *mut *mut c_char) -> c_int {
    guard(0, || {
        // SAFETY: as the caller promises.
        unsafe {
            if entry.is_null() {
                put(text, ptr::null_mut());
                return 0;
            }
            let now = common_data::clock().div_euclid(1_000_000);
            let until = (*entry).valid_until;
            if now >= until || now < until.saturating_sub(60) {
                evaluate(entry, now);
            }
            put(text, (*entry).string);
            (*entry).matched
        }
    })
}

unsafe fn evaluate(entry: *mut MavisTimespec, now: i64) {
    let Some(time) = calendar::local_time(now) else {
        return;
    };
    // SAFETY: as the caller promises; the sets are a list that ends with a null pointer.
    unsafe {
        let mut set = (*entry).sets;
        while !set.is_null() && !(*set).times().contain(&time) {
            set = (*set).next;
        }
        let found = set.as_ref();
        (*entry).matched = if found.is_some() { -1 } else { 0 };
        (*entry).string = found.map_or(ptr::null_mut(), |set| set.string);
        (*entry).valid_until = now - i64::from(time.second.min(59)) + 60;
    }
}

/// `int parse_cron(struct mavis_tm *tm, char *t)`: reads five fields into the sets of `*tm`;
/// nothing else of it changes. 1 if they cannot be read.
#[no_mangle]
pub unsafe extern "C" fn parse_cron(set: *mut MavisTm, text: *const c_char) -> c_int {
    guard(1, || {
        // SAFETY: as the caller promises.
        let (Some(set), Some(text)) = (unsafe { (set.as_mut(), bytes(text)) }) else {
            return 1;
        };
        match Times::parse(text) {
            Ok(times) => {
                set.set(&times);
                0
            }
            Err(_) => 1,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::rbtree::{rbtree_freefunc, traverse_postorder};
    use super::*;

    /// Sets a tree up, looks at one entry of it, and gives all of it back.
    fn with_table(add: impl FnOnce(&mut Table), look: impl FnOnce(*mut MavisTimespec)) {
        let tree = init_timespec();
        // SAFETY: the tree is ours, and each function gets what it asks for.
        unsafe {
            add(&mut Table::of(tree).unwrap());
            look(find_timespec(tree, c"work".as_ptr()));
            traverse_postorder(tree, Some(rbtree_freefunc), tree.cast());
            libc::free(tree.cast());
        }
    }

    /// The minutes of each set of an entry, and the specification it comes from.
    fn sets(entry: *mut MavisTimespec) -> Vec<(u64, String)> {
        // SAFETY: the entry is that of a table.
        let mut set = unsafe { (*entry).sets };
        let mut sets = Vec::new();
        while !set.is_null() {
            // SAFETY: the sets of an entry are valid.
            unsafe {
                sets.push(((*set).minutes, super::super::text((*set).string).unwrap()));
                set = (*set).next;
            }
        }
        sets
    }

    #[test]
    fn specifications_of_a_name_accumulate() {
        let add = |table: &mut Table| {
            for (name, spec) in [("work", "0 * * * *"), ("rest", "*"), ("work", "Wk0855-1000")] {
                table.add(name.as_bytes(), spec.as_bytes()).unwrap();
            }
        };
        with_table(add, |entry| {
            let uucp = "Wk0855-1000".to_owned();
            let expected = [
                (1, "0 * * * *".to_owned()),
                (0b11111 << 55, uucp.clone()),
                (1, uucp.clone()),
                ((1 << 60) - 1, uucp),
            ];
            assert_eq!(sets(entry), expected);
        });
    }

    #[test]
    fn errors_name_the_style() {
        let add = |table: &mut Table| {
            let message =
                |spec: &[u8], table: &mut Table| table.add(b"work", spec).unwrap_err().to_string();
            let start = "Unrecognized 'uucp' style time specification 'Xx'";
            assert_eq!(message(b"Xx", table), start);
            let start = "Unrecognized 'cron' style time specification '*/5'";
            assert_eq!(message(b"*/5", table), start);
        };
        with_table(add, |entry| assert!(entry.is_null()));
        with_table(
            |table| {
                table.open(b"work");
            },
            |entry| assert!(!entry.is_null() && sets(entry).is_empty()),
        );
    }

    #[test]
    fn answer_holds_for_the_minute() {
        let add = |table: &mut Table| {
            table.add(b"work", b"* 25 * * *").unwrap();
            table.add(b"work", b"* * * * *").unwrap();
        };
        with_table(add, |entry| {
            // SAFETY: the entry is that of a table.
            unsafe {
                evaluate(entry, 1_700_000_035);
                assert_eq!((*entry).matched, -1);
                assert_eq!(super::super::text((*entry).string).unwrap(), "* * * * *");
                assert_eq!((*entry).valid_until, 1_700_000_040);
            }
        });
    }
}
