# tcprelay. `make demo` shows it at work, `make test` runs everything that CI checks, `make help`
# lists the rest. Works with any POSIX make.
.POSIX:

# These can all be set on the command line: make install PREFIX=/opt/tcprelay
PREFIX = /usr/local
BINDIR = $(PREFIX)/bin
SBINDIR = $(PREFIX)/sbin
# A directory of its own, so that the C project's libmavis.so is not replaced. To replace it, set
# LIBDIR=$(PREFIX)/lib.
LIBDIR = $(PREFIX)/lib/tcprelay
# With LIBVERSION=0.1 the file is libmavis.so.0.1, with links to it, as the C project installs it.
# The SONAME, which programs and modules ask for, is libmavis.so in any case.
LIBVERSION =
INCLUDEDIR = $(PREFIX)/include
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/tcprelay
EXAMPLESDIR = $(DOCDIR)
# Completion of commands in shells.
BASHDIR = $(PREFIX)/share/bash-completion/completions
ZSHDIR = $(PREFIX)/share/zsh/site-functions
FISHDIR = $(PREFIX)/share/fish/vendor_completions.d
# The directory for modules; it is compiled into the programs.
MAVISDIR = $(PREFIX)/lib/mavis
# The service reads tcprelay.cfg in this directory.
SYSCONFDIR = $(PREFIX)/etc
# For files that change at run time: the pid file.
RUNDIR = /var/run
# The workers' user in service.cfg, the configuration to start from.
SERVICEUSER = tcprelay
SERVICEGROUP = tcprelay
# The launchd label, in reverse DNS.
LAUNCHLABEL = org.tcprelay.tcprelay
DESTDIR =
CARGO = cargo
CARGOFLAGS = --locked
BUILDDIR = target
# Where cargo puts the programs; set it as well if you set CARGO_BUILD_TARGET.
RELEASE = $(BUILDDIR)/release

# Where each system keeps its services.
UNITDIR = /usr/lib/systemd/system
SYSUSERSDIR = /usr/lib/sysusers.d
INITDIR = /etc/init.d
LAUNCHDIR = /Library/LaunchDaemons
SMFDIR = /lib/svc/manifest/network
SMFMETHODDIR = /lib/svc/method

BUILD = MAVIS_DIR=$(MAVISDIR) $(CARGO) build $(CARGOFLAGS) --release --target-dir $(BUILDDIR)
# Arguments: mode, directory, files.
INSTALL = sh tools/install
# The same for service files, in which it replaces @NAME@ of directories and of the user.
SERVICE = SBINDIR=$(SBINDIR) SYSCONFDIR=$(SYSCONFDIR) RUNDIR=$(RUNDIR) SMFMETHODDIR=$(SMFMETHODDIR) \
	SERVICEUSER=$(SERVICEUSER) SERVICEGROUP=$(SERVICEGROUP) LAUNCHLABEL=$(LAUNCHLABEL) \
	sh tools/install-service

all:
	$(BUILD)

help:
	@sed -n 's/^.: //p' Makefile

#: Building and trying
#:   all            builds the programs and the library (the default)
#:   check          runs the quick tests
#:   demo           shows the relay at work
#:   clean          removes what was built
#: Installing, below DESTDIR
#:   install        installs programs, library, headers, manual pages and samples
#:   install-SYSTEM installs a service: systemd, sysv, launchd or smf
#:   deinstall      removes all of these, but no configuration
#: For developers
#:   deps           installs what building and testing needs
#:   test           runs everything that CI checks
#:   test-vm        runs the tests that need another kernel, in a virtual machine
#:   test-kernels   tests for other processors, emulated, and with another kqueue
#:   test-tls       runs tlsfuzzer, BoGo and Wycheproof's vectors against the relay, and nginx beside it
#:   test-openssl   runs the TLS suites with another OpenSSL 3: OPENSSL=directory
#:   test-keys      runs the TLS suites with private keys in a process of their own
#:   soak           keeps a service under stress for about twenty minutes
#:   test-peers     tests with Envoy, Go, rustls and a PROXY parser in Python, besides those of test
#:   test-status    checks the metrics with promtool, and has a Prometheus scrape them
#:   test-page      looks at the status page in Chromium; screenshots makes pictures of it
#:   simulate       runs the relay over a simulated kernel: SEEDS= SECONDS= FIRST= SEED= TRACE=
#:   mutations      checks that the simulation finds planted mistakes, some minutes for each
#:   check-targets  type-checks for the other systems
#:   cross          builds and links for another system: TARGET=x86_64-unknown-freebsd or -netbsd
#:   fuzz           runs the fuzz targets
#:   bench          measures what relaying costs, next to other relays
#:   bench-micro    measures the parts separately
#:   bench-balance  shows how each kind of balancing shares out sessions, and how many keys move
#:   bench-instructions   counts instructions of hot paths, and compares them with the saved ones
#: Packages
#:   vendor-tarball makes the distribution file, with all crates, and its checksums
#:   deb            builds the Debian package from the distribution file
#:   check-packages checks everything in packaging with the systems' own checkers
#:   test-package   installs the Debian package, upgrades it under load, and removes it
#:   test-package-systemd   does the same in a container that runs systemd

# Checks for what building needs. Installs what is missing if this user may, otherwise prints the
# command.
deps-build:
	sh tools/deps build

# The same, and what the tests need: real servers and clients.
deps:
	sh tools/deps build test

demo: deps-build
	$(BUILD) --lib --bins --example demo
	MAVIS_DIR=$(MAVISDIR) $(CARGO) run $(CARGOFLAGS) --release --target-dir $(BUILDDIR) --quiet --example demo

# The quick tests: no real servers, native event mechanisms only.
check:
	$(CARGO) test $(CARGOFLAGS) --target-dir $(BUILDDIR) --lib --test relay --test broker --test conformance

test: deps
	sh tools/check

# The programs look for the library in ../lib/tcprelay and ../lib, or where TCPRELAY_RUN_PATH
# pointed when they were built.
install: all
	$(INSTALL) 755 $(DESTDIR)$(SBINDIR) $(RELEASE)/tcprelay $(RELEASE)/spawnd $(RELEASE)/tcprelayctl
	$(INSTALL) 755 $(DESTDIR)$(BINDIR) $(RELEASE)/mavistest
	library=$(RELEASE)/libmavis.so; \
	test -f $$library || library=$(RELEASE)/libmavis.dylib; \
	sh tools/install-library $(DESTDIR)$(LIBDIR) $$library $(LIBVERSION)
	$(INSTALL) 755 $(DESTDIR)$(MAVISDIR)
	$(INSTALL) 644 $(DESTDIR)$(INCLUDEDIR)/tcprelay/mavis compat/include/mavis/*.h
	$(INSTALL) 644 $(DESTDIR)$(INCLUDEDIR)/tcprelay/misc compat/include/misc/*.h
	$(INSTALL) 644 $(DESTDIR)$(MANDIR)/man1 man/*.1
	$(INSTALL) 644 $(DESTDIR)$(MANDIR)/man3 man/*.3
	$(INSTALL) 644 $(DESTDIR)$(MANDIR)/man5 man/*.5
	$(INSTALL) 644 $(DESTDIR)$(MANDIR)/man8 man/*.8
	$(INSTALL) 644 $(DESTDIR)$(DOCDIR) README.md CHANGELOG.md LICENSE packaging/LICENSE.crates docs/metrics.md docs/migration.md docs/operations.md docs/recipes.md
	$(INSTALL) 644 $(DESTDIR)$(EXAMPLESDIR) samples/*.cfg samples/*.list
	$(SERVICE) 644 samples/service.cfg $(DESTDIR)$(EXAMPLESDIR)/service.cfg
	$(INSTALL) 755 $(DESTDIR)$(EXAMPLESDIR) samples/*.sh
	$(INSTALL) 644 $(DESTDIR)$(BASHDIR) completions/tcprelayctl.bash
	$(INSTALL) 644 $(DESTDIR)$(ZSHDIR) completions/_tcprelayctl
	$(INSTALL) 644 $(DESTDIR)$(FISHDIR) completions/tcprelayctl.fish

install-systemd:
	$(SERVICE) 644 packaging/systemd/tcprelay.service $(DESTDIR)$(UNITDIR)/tcprelay.service
	$(SERVICE) 644 packaging/systemd/sysusers.conf $(DESTDIR)$(SYSUSERSDIR)/tcprelay.conf

install-sysv:
	$(SERVICE) 755 packaging/sysv/tcprelay $(DESTDIR)$(INITDIR)/tcprelay

install-launchd:
	$(SERVICE) 644 packaging/launchd/tcprelay.plist $(DESTDIR)$(LAUNCHDIR)/$(LAUNCHLABEL).plist

install-smf:
	$(SERVICE) 644 packaging/smf/tcprelay.xml $(DESTDIR)$(SMFDIR)/tcprelay.xml
	$(SERVICE) 755 packaging/smf/tcprelay $(DESTDIR)$(SMFMETHODDIR)/tcprelay

# Leaves modules and configurations, which belong to others, and directories that are not empty.
deinstall:
	rm -f $(DESTDIR)$(SBINDIR)/tcprelay $(DESTDIR)$(SBINDIR)/spawnd $(DESTDIR)$(SBINDIR)/tcprelayctl
	rm -f $(DESTDIR)$(BINDIR)/mavistest
	rm -f $(DESTDIR)$(LIBDIR)/libmavis.so $(DESTDIR)$(LIBDIR)/libmavis.dylib
	test -z "$(LIBVERSION)" || rm -f $(DESTDIR)$(LIBDIR)/libmavis.so.*
	rm -rf $(DESTDIR)$(INCLUDEDIR)/tcprelay
	for page in `cd man && echo *`; do rm -f $(DESTDIR)$(MANDIR)/man[1-9]/$$page; done
	for sample in `cd samples && echo *`; do rm -f $(DESTDIR)$(EXAMPLESDIR)/$$sample; done
	for text in README.md CHANGELOG.md LICENSE LICENSE.crates metrics.md migration.md operations.md recipes.md; do rm -f $(DESTDIR)$(DOCDIR)/$$text; done
	rm -f $(DESTDIR)$(BASHDIR)/tcprelayctl.bash $(DESTDIR)$(ZSHDIR)/_tcprelayctl
	rm -f $(DESTDIR)$(FISHDIR)/tcprelayctl.fish
	rm -f $(DESTDIR)$(UNITDIR)/tcprelay.service $(DESTDIR)$(INITDIR)/tcprelay
	rm -f $(DESTDIR)$(SYSUSERSDIR)/tcprelay.conf $(DESTDIR)$(LAUNCHDIR)/$(LAUNCHLABEL).plist
	rm -f $(DESTDIR)$(SMFDIR)/tcprelay.xml $(DESTDIR)$(SMFMETHODDIR)/tcprelay
	-rmdir $(DESTDIR)$(MAVISDIR) 2>/dev/null
	-case $(LIBDIR) in */tcprelay) rmdir $(DESTDIR)$(LIBDIR) 2>/dev/null ;; esac
	-rmdir $(DESTDIR)$(EXAMPLESDIR) $(DESTDIR)$(DOCDIR) 2>/dev/null

# Tests that need a kernel with more features, in a virtual machine; the first run downloads it.
test-vm: deps-build
	sh tools/test-vm

# Big-endian s390x and powerpc64le under an emulator, and libkqueue; the first run downloads a
# toolchain.
test-kernels: deps-build
	sh tools/test-kernels

# Test suites of others for TLS, with what they are expected to fail in tests/tls; fetches them the
# first time. TLSFLAGS= are arguments of tools/test-tls.
TLSFLAGS =
test-tls: all
	$(BUILD) --example bogo
	python3 tools/test-tls --relay $(RELEASE)/tcprelay --bogo $(RELEASE)/examples/bogo $(TLSFLAGS)

# With the libraries and the openssl program of another version, installed in OPENSSL. What was built
# against the system's version runs with all of OpenSSL 3.
test-openssl:
	CARGO="$(CARGO)" CARGOFLAGS="$(CARGOFLAGS)" BUILDDIR=$(BUILDDIR) sh tools/test-openssl $(OPENSSL)

test-keys:
	TCPRELAY_TEST_KEYS=separate $(CARGO) test $(CARGOFLAGS) --target-dir $(BUILDDIR) --test tls \
		--test tls_policy --test tls_secrets --test reload

# What takes longer than a test may: reloads, killed and stopped workers, failing system calls, all
# under load.
soak: all
	python3 tools/soak --relay $(RELEASE)/tcprelay

# What `make test` leaves out without them: 140 MB are fetched.
test-peers:
	sh tools/deps build test peers
	$(CARGO) test $(CARGOFLAGS) --target-dir $(BUILDDIR) --test peers
	$(CARGO) test $(CARGOFLAGS) --target-dir $(BUILDDIR) --test inspect go_and_rustls

# With a real Prometheus; installs it if this user may.
test-status: all
	sh tools/deps status
	python3 tools/test-status metrics $(RELEASE)/tcprelay

# In Chromium.
test-page: all
	sh tools/deps status
	python3 tools/test-status page $(RELEASE)/tcprelay

# Pictures of the status page, for the documentation.
screenshots: all
	sh tools/deps status
	python3 tools/test-status screenshots $(RELEASE)/tcprelay $(BUILDDIR)/screenshots

# Runs random seeds. SEED=N replays one that failed; TRACE=N shows the last N lines of what
# happened.
simulate:
	SEEDS=$(SEEDS) SECONDS=$(SECONDS) FIRST=$(FIRST) SEED=$(SEED) TRACE=$(TRACE) CARGO=$(CARGO) \
		sh tools/simulate $(CARGOFLAGS) --target-dir $(BUILDDIR)

# Plants mistakes, one at a time, in a copy of the source; the simulation must find each.
mutations:
	python3 tools/mutate

# Type-checks for the other systems on Linux; the first run downloads a toolchain.
check-targets:
	sh tools/check-targets

# Builds and links for another system, and checks what its loader will look for.
cross:
	sh tools/cross $(TARGET)

fuzz:
	sh tools/fuzz

# Packs the commit that is checked out, without uncommitted changes.
vendor-tarball:
	sh tools/vendor-tarball $(BUILDDIR)/packages

deb: vendor-tarball
	sh tools/build-deb $(BUILDDIR)/packages

check-packages:
	sh tools/check-packages $(BUILDDIR)/packages

test-package: deb
	sh tools/test-package $(BUILDDIR)/packages

# The same in a container that runs systemd.
test-package-systemd: deb
	sh tools/test-package-systemd $(BUILDDIR)/packages

# The cost of relaying, next to the other relays that are installed; see benches/README.md.
bench: all
	python3 benches/bench.py --relay tcprelay=$(BUILDDIR)/release/tcprelay

# Microbenchmarks of the parts.
bench-micro:
	$(CARGO) bench $(CARGOFLAGS) --target-dir $(BUILDDIR) --bench micro

# Tables of shares and of movement, which tests check and print.
bench-balance:
	$(CARGO) test $(CARGOFLAGS) --target-dir $(BUILDDIR) --quiet --lib -- --nocapture --test-threads=1 \
		shares_of_ten_thousand_sessions few_slots_move_when_a_remote_leaves

# Counts instructions of hot paths, and compares them with benches/instructions.tsv.
bench-instructions:
	CARGO_TARGET_DIR=$(BUILDDIR) sh tools/bench-instructions

clean:
	$(CARGO) clean --target-dir $(BUILDDIR)

.PHONY: all help deps-build deps demo check test test-vm test-kernels soak test-peers test-status test-page screenshots simulate mutations install install-systemd \
	install-sysv install-launchd install-smf deinstall check-targets cross fuzz vendor-tarball deb check-packages \
	test-package test-package-systemd bench bench-micro bench-balance bench-instructions clean
