# tcprelay. `make demo` shows it at work, `make test` is everything that CI checks.

PREFIX = /usr/local
BINDIR = $(PREFIX)/bin
SBINDIR = $(PREFIX)/sbin
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/tcprelay
DESTDIR =
CARGO = cargo
CARGOFLAGS = --locked
TARGET = target

all:
	MAVIS_DIR=$(LIBDIR)/mavis $(CARGO) build $(CARGOFLAGS) --release --target-dir $(TARGET)

# What building needs; installed if that is allowed, otherwise said exactly.
deps-build:
	sh tools/deps build

# What the tests need besides: real servers and clients.
deps:
	sh tools/deps build test

demo: deps-build
	MAVIS_DIR=$(LIBDIR)/mavis $(CARGO) build $(CARGOFLAGS) --release --target-dir $(TARGET)
	MAVIS_DIR=$(LIBDIR)/mavis $(CARGO) run $(CARGOFLAGS) --release --target-dir $(TARGET) --quiet --example demo

# The quick part of the tests: no real servers, native mechanisms only.
check:
	$(CARGO) test $(CARGOFLAGS) --target-dir $(TARGET) --lib --test relay --test broker --test conformance

test: deps
	sh tools/check

# The programs find the library in ../lib. Modules go to $(LIBDIR)/mavis.
install: all
	mkdir -p $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/mavis $(DESTDIR)$(DOCDIR)
	mkdir -p $(DESTDIR)$(INCLUDEDIR)/tcprelay/mavis $(DESTDIR)$(INCLUDEDIR)/tcprelay/misc
	mkdir -p $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man3 $(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man8
	install -m 755 $(TARGET)/release/libmavis.so $(DESTDIR)$(LIBDIR)/
	install -m 755 $(TARGET)/release/tcprelay $(TARGET)/release/spawnd $(DESTDIR)$(SBINDIR)/
	install -m 755 $(TARGET)/release/mavistest $(DESTDIR)$(BINDIR)/
	install -m 644 compat/include/mavis/*.h $(DESTDIR)$(INCLUDEDIR)/tcprelay/mavis/
	install -m 644 compat/include/misc/*.h $(DESTDIR)$(INCLUDEDIR)/tcprelay/misc/
	install -m 644 man/mavistest.1 $(DESTDIR)$(MANDIR)/man1/
	install -m 644 man/mavis.3 $(DESTDIR)$(MANDIR)/man3/
	install -m 644 man/tcprelay.cfg.5 $(DESTDIR)$(MANDIR)/man5/
	install -m 644 man/tcprelay.8 man/spawnd.8 $(DESTDIR)$(MANDIR)/man8/
	install -m 644 README.md CHANGELOG.md LICENSE samples/*.cfg samples/*.list $(DESTDIR)$(DOCDIR)/
	install -m 755 samples/*.sh $(DESTDIR)$(DOCDIR)/

# The tests of what this machine's kernel may lack, in a virtual one; the first run fetches it.
test-vm: deps-build
	sh tools/test-vm

# Type-checks the other systems from Linux; the first run fetches a toolchain for that.
check-targets:
	sh tools/check-targets

fuzz:
	sh tools/fuzz

clean:
	$(CARGO) clean --target-dir $(TARGET)

.PHONY: all deps-build deps demo check test test-vm install check-targets fuzz clean
