//! Time specifications of tac_plus: a red-black tree of `struct mavis_timespec` by name, each with
//! a list of `struct mavis_tm`. All of it is allocated with malloc(3), except the tree's nodes.

use super::rbtree::{RbNode, RbTree, Tree};
use crate::ffi::entry::{entry, Argument};
use crate::library::cron::Times;
use crate::library::rbtree::Location;
use crate::library::timespec;
use crate::os::calendar;
use crate::os::malloc::{allocate, Owned, Text};
use std::cmp::Ordering;
use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr::{self, NonNull};

/// `struct mavis_tm`: one set of times. Bit n of a set stands for the value n of the field of
/// `struct tm`.
#[repr(C)]
pub struct MavisTm {
    next: *mut MavisTm,
    /// The specification that it was read from.
    string: *mut c_char,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

/// `struct mavis_timespec`: a name, and its times.
#[repr(C)]
pub struct MavisTimespec {
    sets: *mut MavisTm,
    /// The specification that matched last.
    string: *mut c_char,
    matched: c_int,
    /// When the answer expires, in seconds since 1970.
    valid_until: i64,
    /// The first byte; the name continues past the end of the struct.
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

/// The time specifications of a tree.
pub struct Table(Tree);

/// The tree must come from `init_timespec`.
impl Argument for Table {
    type Raw = *mut RbTree;
    unsafe fn take(raw: *mut RbTree) -> Option<Table> {
        // SAFETY: as the caller promises.
        unsafe { Tree::take(raw) }.map(Table)
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn allocate() -> *mut RbTree {
        Tree::allocate(Some(compare), Some(free))
    }

    /// The time specification with this name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<NonNull<MavisTimespec>> {
        match self.find(name) {
            Location::Found(node) => NonNull::new(self.0.key(node).cast_mut().cast()),
            Location::Missing { .. } => None,
        }
    }

    fn find(&self, name: &[u8]) -> Location<NonNull<RbNode>> {
        // SAFETY: the keys of such a tree are time specifications.
        self.0.locate_by(|key| name.cmp(unsafe { name_of(key.cast()) }))
    }

    /// The time specification with this name, created if there is none. It matches no time until a
    /// specification is added.
    pub(crate) fn open(&mut self, name: &[u8]) -> NonNull<c_void> {
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
        let node = RbNode::allocate();
        // SAFETY: the node is new.
        unsafe { (*node.as_ptr()).key = memory.as_ptr().cast() };
        self.0.insert(node, place);
        memory.cast()
    }

    /// Adds a specification of either style to those of a name. The error is a message.
    pub(crate) fn add(&mut self, name: &[u8], spec: &[u8]) -> Result<(), String> {
        let sets = timespec::parse(spec).map_err(|_| timespec::complaint(spec))?;
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

/// The name of a time specification. The entry may be a search key, which has only a valid name.
///
/// # Safety
/// The entry belongs to a table.
unsafe fn name_of<'a>(entry: *const MavisTimespec) -> &'a [u8] {
    // SAFETY: as the caller promises; the name continues past the end of the struct. No reference
    // to the struct is made, as the entry may be shorter.
    unsafe { <&[u8]>::take((&raw const (*entry).name).cast()) }.unwrap_or_default()
}

entry! {
    /// Compares keys of a table, which are time specifications, by name.
    #[otherwise(0)]
    fn compare(a: *const c_void, b: *const c_void) -> c_int {
        // SAFETY: the tree calls this with its keys and with searched keys.
        match unsafe { name_of(a.cast()).cmp(name_of(b.cast())) } {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// Frees a time specification of a table.
    fn free(entry: *const c_void) {
        let entry: *mut MavisTimespec = entry.cast_mut().cast();
        if entry.is_null() {
            return;
        }
        // SAFETY: the tree calls this with a key that nobody uses any more; all of it came from
        // malloc(3), and the specification that matched last belongs to a set of the list.
        unsafe {
            let mut set = (*entry).sets;
            while !set.is_null() {
                let next = (*set).next;
                libc::free((*set).string.cast());
                libc::free(set.cast());
                set = next;
            }
            libc::free(entry.cast());
        }
    }
}

impl MavisTimespec {
    /// Not 0 if the time is in one of the sets; and the specification that matched, or null. The
    /// answer is kept until the minute ends.
    ///
    /// # Safety
    /// The entry belongs to a table, and nobody else uses it during the call.
    pub(crate) unsafe fn evaluate(entry: NonNull<MavisTimespec>, now: i64) -> (c_int, *mut c_char) {
        let entry = entry.as_ptr();
        // SAFETY: as the caller promises; the sets are a list that ends with a null pointer.
        unsafe {
            if !timespec::holds((*entry).valid_until, now) {
                if let Some(time) = calendar::local_time(now) {
                    let mut set = (*entry).sets;
                    while !set.is_null() && !(*set).times().contain(&time) {
                        set = (*set).next;
                    }
                    let found = set.as_ref();
                    (*entry).matched = if found.is_some() { -1 } else { 0 };
                    (*entry).string = found.map_or(ptr::null_mut(), |set| set.string);
                    (*entry).valid_until = timespec::valid_until(now, time.second);
                }
            }
            ((*entry).matched, (*entry).string)
        }
    }
}

impl MavisTm {
    /// Reads five fields into the sets, and leaves the other fields alone. False if they cannot be
    /// read.
    pub(crate) fn parse(&mut self, text: &[u8]) -> bool {
        let times = Times::parse(text);
        if let Ok(times) = &times {
            self.set(times);
        }
        times.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::mavis::timespec::{find_timespec, init_timespec};
    use crate::ffi::rb::rbtree_freefunc;
    use crate::ffi::rbtree::traverse_postorder;

    /// Fills a tree, looks at one entry of it, and frees all of it.
    fn with_table(add: impl FnOnce(&mut Table), look: impl FnOnce(*mut MavisTimespec)) {
        // SAFETY: the tree was made here, and each function gets the arguments it requires.
        unsafe {
            let tree = init_timespec();
            add(&mut Table::take(tree).unwrap());
            look(find_timespec(tree, c"work".as_ptr()));
            traverse_postorder(tree, Some(rbtree_freefunc), tree.cast());
            libc::free(tree.cast());
        }
    }

    /// The minutes of each set of an entry, and the specification it was read from.
    fn sets(entry: *mut MavisTimespec) -> Vec<(u64, String)> {
        // SAFETY: the entry belongs to a table.
        let mut set = unsafe { (*entry).sets };
        let mut sets = Vec::new();
        while !set.is_null() {
            // SAFETY: the sets of an entry are valid.
            unsafe {
                sets.push(((*set).minutes, String::take((*set).string).unwrap()));
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
            let message = |spec: &[u8], table: &mut Table| table.add(b"work", spec).unwrap_err();
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
            // SAFETY: the entry belongs to a table.
            unsafe {
                let entry = NonNull::new(entry).unwrap();
                let (matched, string) = MavisTimespec::evaluate(entry, 1_700_000_035);
                assert_eq!(matched, -1);
                assert_eq!(String::take(string).unwrap(), "* * * * *");
                assert_eq!((*entry.as_ptr()).valid_until, 1_700_000_040);
            }
        });
    }
}
