//! What ties a worker or the monitor to its broker besides their messages: the signals to leave,
//! keepalives, and the news that the broker has died.

use super::link::Link;
use crate::event::{Event, Interest, Loop, Token};
use crate::os::parent::{self, Death, KEEPALIVE_PERIOD};
use crate::os::signals::{self, Signal, Signals};
use std::io;

/// The signal that the kernel sends when the broker dies, where it can.
const PARENT_DEATH: Signal = Signal::SIGUSR2;

/// The indices of its tokens.
const SIGNALS: u32 = 0;
const CHANNEL: u32 = 1;
const BROKER_DEATH: u32 = 2;

/// What the owner of a [`Tether`] has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Nothing.
    None,
    /// Read the channel.
    Messages,
    /// Leave, as a signal says.
    Leave,
}

/// A process's tie to its broker.
pub struct Tether {
    kind: u8,
    signals: Signals,
    /// Readable when the broker is dead; only where no signal reports that.
    death: Option<Death>,
}

impl Tether {
    /// Watches signals, channel and broker, and arms the timer of keepalives. All tokens are of this
    /// kind.
    pub fn new(kind: u8, link: &Link, events: &mut Loop) -> io::Result<Tether> {
        let signals = Signals::install(&[Signal::SIGTERM, Signal::SIGHUP, PARENT_DEATH])?;
        // Nobody waits for children here, and they must not stay as zombies.
        signals::ignore(Signal::SIGCHLD)?;
        let death = parent::watch(PARENT_DEATH);
        if let Some(death) = &death {
            events.register(death, Token::new(kind, BROKER_DEATH), Interest::READ);
        }
        events.register(signals.descriptor(), Token::new(kind, SIGNALS), Interest::READ);
        link.register(Token::new(kind, CHANNEL), events);
        events.arm(Token::new(kind, 0), events.now() + KEEPALIVE_PERIOD);
        Ok(Tether { kind, signals, death })
    }

    /// Handles an event of its kind.
    pub fn event(&mut self, event: Event, link: &mut Link, events: &mut Loop) -> Pull {
        match event.token.index() {
            CHANNEL if event.readable || event.hangup => return Pull::Messages,
            SIGNALS => {
                let arrived = self.signals.take();
                if arrived.has(PARENT_DEATH) {
                    link.keep_alive();
                }
                if arrived.has(Signal::SIGTERM) || arrived.has(Signal::SIGHUP) {
                    return Pull::Leave;
                }
            }
            BROKER_DEATH => {
                if let Some(death) = self.death.take() {
                    events.remove(&death);
                }
                link.keep_alive();
            }
            _ => {}
        }
        Pull::None
    }

    /// The timer of its kind has expired: a keepalive is due.
    pub fn expired(&self, link: &mut Link, events: &mut Loop) {
        if !link.is_leaving() {
            link.keep_alive();
            events.arm(Token::new(self.kind, 0), events.now() + KEEPALIVE_PERIOD);
        }
    }
}
