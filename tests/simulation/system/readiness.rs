//! The calls of poll(2) and epoll(7).

use super::*;

#[no_mangle]
unsafe extern "C" fn poll(
    entries: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: c_int,
) -> c_int {
    // SAFETY: poll(2) is given so many entries.
    let list = unsafe { slice::from_raw_parts_mut(entries, count as usize) };
    if !list.iter().any(|entry| is_ours(entry.fd)) {
        return real!("poll", fn(*mut libc::pollfd, libc::nfds_t, c_int) -> c_int)(
            entries, count, timeout,
        );
    }
    if timeout != 0 {
        if let Err(errno) = kernel(interrupted) {
            return fail(errno);
        }
    }
    let until = kernel(|kernel| kernel.waits_until(timeout));
    loop {
        let mut ready = 0;
        for entry in &mut *list {
            let bits = kernel(|kernel| {
                let id = kernel.object(entry.fd);
                id.map_or(libc::POLLNVAL as u32, |id| kernel.readiness(id))
            });
            // poll(2) and epoll(7) use the same bits.
            let always = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
            entry.revents = bits as i16 & (entry.events | always);
            ready += c_int::from(entry.revents != 0);
        }
        if ready > 0 || !until.is_some_and(crate::processes::run_others) {
            return ready;
        }
    }
}

#[no_mangle]
extern "C" fn epoll_create1(flags: c_int) -> c_int {
    if !is_simulated() {
        return real!("epoll_create1", fn(c_int) -> c_int)(flags);
    }
    kernel(Kernel::new_epoll)
}

#[no_mangle]
unsafe extern "C" fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> c_int {
    if !is_ours(epoll) {
        let real = real!("epoll_ctl", fn(c_int, c_int, c_int, *mut libc::epoll_event) -> c_int);
        return real(epoll, operation, fd, event);
    }
    // SAFETY: epoll_ctl(2) is given an event, or null to remove one.
    let event = unsafe { event.as_ref() }.map_or(Event { events: 0, data: 0 }, |event| Event {
        events: event.events,
        data: event.u64,
    });
    answer(kernel(|kernel| kernel.epoll_control(epoll, operation, fd, event).map(|()| 0)))
}

#[no_mangle]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    if !is_ours(epoll) {
        let real = real!("epoll_wait", fn(c_int, *mut libc::epoll_event, c_int, c_int) -> c_int);
        return real(epoll, events, most, timeout);
    }
    match kernel(|kernel| kernel.epoll_wait(epoll, most as usize, timeout)) {
        Ok(ready) => {
            for (index, event) in ready.iter().enumerate() {
                // SAFETY: epoll_wait(2) is given room for `most` events.
                unsafe {
                    let event = libc::epoll_event { events: event.events, u64: event.data };
                    ptr::write_unaligned(events.add(index), event);
                }
            }
            ready.len() as c_int
        }
        Err(errno) => fail(errno),
    }
}
