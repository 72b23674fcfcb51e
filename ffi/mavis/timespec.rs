//! mavis/mavis.h: time specifications of tac_plus.

use super::reading;
use crate::ffi::entry::{entry, Out};
use crate::ffi::layout::rbtree::RbTree;
use crate::ffi::layout::timespec::{MavisTimespec, MavisTm, Table};
use crate::os::common_data;
use std::ffi::{c_char, c_int};
use std::ptr::{self, NonNull};

entry! {
    /// `rb_tree_t *init_timespec(void)`: an empty table of time specifications.
    #[otherwise(ptr::null_mut())]
    pub fn init_timespec() -> *mut RbTree {
        Table::allocate()
    }

    /// `struct mavis_timespec *find_timespec(rb_tree_t *timespectable, char *s)`: the time
    /// specification with this name, or null.
    #[otherwise(ptr::null_mut())]
    pub fn find_timespec(table: Table, name: &[u8]) -> *mut MavisTimespec {
        table.get(name).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// `int eval_timespec(struct mavis_timespec *ts, char **s)`: not 0 if the local time of
    /// `io_now` is in one of the sets; `*s` becomes the specification that matched, or null. The
    /// answer is kept until the minute ends.
    #[otherwise(0)]
    pub fn eval_timespec(entry: Option<NonNull<MavisTimespec>>, text: Out<*mut c_char>) -> c_int {
        let (matched, from) = match entry {
            // SAFETY: the entry came from `find_timespec`.
            Some(entry) => unsafe {
                MavisTimespec::evaluate(entry, common_data::clock().div_euclid(1_000_000))
            },
            None => (0, ptr::null_mut()),
        };
        text.put(from);
        matched
    }

    /// `int parse_cron(struct mavis_tm *tm, char *t)`: reads five fields into the sets of `*tm`,
    /// and leaves its other fields alone. 1 if they cannot be read.
    #[otherwise(1)]
    pub fn parse_cron(set: &mut MavisTm, text: &[u8]) -> c_int {
        c_int::from(!set.parse(text))
    }

    /// `void parse_timespec(rb_tree_t *timespectable, struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_timespec(table: Option<Table>, sym: reading::Reader) -> c_int {
        sym.read(|parser| {
            parser.timespec(|name, spec| match (&mut table, spec) {
                (Some(table), Some(spec)) => table.add(name, spec),
                (Some(table), None) => {
                    table.open(name);
                    Ok(())
                }
                (None, _) => Ok(()),
            })
        })
    }
}
