# tcprelay. `make demo` shows it at work, `make test` is everything that CI checks,
# `make help` tells the rest. Any make of POSIX will do.
.POSIX:

# All of these can be given on the command line: make install PREFIX=/opt/tcprelay
PREFIX = /usr/local
BINDIR = $(PREFIX)/bin
SBINDIR = $(PREFIX)/sbin
# The library's own folder, so that it does not replace the C project's libmavis.so; say
# LIBDIR=$(PREFIX)/lib for that.
LIBDIR = $(PREFIX)/lib/tcprelay
# With LIBVERSION=0.1 the library is libmavis.so.0.1 behind links, as the C project installs it. The
# name that programs and modules ask for stays libmavis.so.
LIBVERSION =
INCLUDEDIR = $(PREFIX)/include
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/tcprelay
EXAMPLESDIR = $(DOCDIR)
# The folder of modules, which the programs have built in.
MAVISDIR = $(PREFIX)/lib/mavis
# The service reads its configuration, tcprelay.cfg, from there.
SYSCONFDIR = $(PREFIX)/etc
# What is changed at run time: the pid file.
RUNDIR = /var/run
# Workers run as this user in the configuration to start from, service.cfg.
SERVICEUSER = tcprelay
SERVICEGROUP = tcprelay
# Name of the job for launchd, in reverse DNS.
LAUNCHLABEL = org.tcprelay.tcprelay
DESTDIR =
CARGO = cargo
CARGOFLAGS = --locked
BUILDDIR = target
# Where cargo puts the results; with CARGO_BUILD_TARGET that is another folder.
RELEASE = $(BUILDDIR)/release

# Where the services of the system are kept.
UNITDIR = /usr/lib/systemd/system
SYSUSERSDIR = /usr/lib/sysusers.d
INITDIR = /etc/init.d
LAUNCHDIR = /Library/LaunchDaemons
SMFDIR = /lib/svc/manifest/network
SMFMETHODDIR = /lib/svc/method

BUILD = MAVIS_DIR=$(MAVISDIR) $(CARGO) build $(CARGOFLAGS) --release --target-dir $(BUILDDIR)
# Takes the mode, the folder and the files.
INSTALL = sh tools/install
# The same for a service: the names of folders, and of the user, are put in.
SERVICE = SBINDIR=$(SBINDIR) SYSCONFDIR=$(SYSCONFDIR) RUNDIR=$(RUNDIR) SMFMETHODDIR=$(SMFMETHODDIR) \
	SERVICEUSER=$(SERVICEUSER) SERVICEGROUP=$(SERVICEGROUP) LAUNCHLABEL=$(LAUNCHLABEL) \
	sh tools/install-service

all:
	$(BUILD)

help:
	@sed -n 's/^.: //p' Makefile

#: Building and trying
#:   all            the programs and the library, the default
#:   check          the quick tests
#:   demo           shows the relay at work
#:   clean          removes what was built
#: Installing, below DESTDIR
#:   install        programs, library, headers, manual, samples
#:   install-SYSTEM a service: systemd, sysv, launchd or smf
#:   deinstall      removes all of this again, but no configuration
#: For developers
#:   deps           what building and testing needs
#:   test           everything that CI checks
#:   test-vm        what needs another kernel
#:   test-kernels   other processors, emulated, and another kqueue
#:   soak           service under stress, for some twenty minutes
#:   simulate       broker, workers, clients and remotes over a simulated kernel: SEEDS= SECONDS= SEED=
#:   mutations      shows that the simulation finds planted mistakes, each in some minutes
#:   check-targets  type-checks the other systems
#:   cross          builds and links for another: TARGET=x86_64-unknown-freebsd or -netbsd
#:   fuzz           the fuzz targets
#:   bench          what relaying costs, beside other relays
#:   bench-micro    the parts by themselves
#:   bench-instructions   hot paths in instructions, compared with those kept
#: Packages
#:   vendor-tarball the distribution file, with all crates, and its checksums
#:   deb            the package for Debian, from the distribution file
#:   check-packages what is below packaging, by the systems' own checkers
#:   test-package   installs the package for Debian, upgrades it under load, removes it
#:   test-package-systemd   the same in a container, where systemd runs

# What building needs; installed if that is allowed, otherwise said exactly.
deps-build:
	sh tools/deps build

# What the tests need besides: real servers and clients.
deps:
	sh tools/deps build test

demo: deps-build
	$(BUILD)
	MAVIS_DIR=$(MAVISDIR) $(CARGO) run $(CARGOFLAGS) --release --target-dir $(BUILDDIR) --quiet --example demo

# The quick part of the tests: no real servers, native mechanisms only.
check:
	$(CARGO) test $(CARGOFLAGS) --target-dir $(BUILDDIR) --lib --test relay --test broker --test conformance

test: deps
	sh tools/check

# The programs find the library in ../lib/tcprelay or ../lib, or where TCPRELAY_RUN_PATH said when
# they were built.
install: all
	$(INSTALL) 755 $(DESTDIR)$(SBINDIR) $(RELEASE)/tcprelay $(RELEASE)/spawnd
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
	$(INSTALL) 644 $(DESTDIR)$(DOCDIR) README.md CHANGELOG.md LICENSE packaging/LICENSE.crates docs/migration.md
	$(INSTALL) 644 $(DESTDIR)$(EXAMPLESDIR) samples/*.cfg samples/*.list
	$(SERVICE) 644 samples/service.cfg $(DESTDIR)$(EXAMPLESDIR)/service.cfg
	$(INSTALL) 755 $(DESTDIR)$(EXAMPLESDIR) samples/*.sh

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

# Modules and configurations are somebody else's; folders stay if something else is in them.
deinstall:
	rm -f $(DESTDIR)$(SBINDIR)/tcprelay $(DESTDIR)$(SBINDIR)/spawnd $(DESTDIR)$(BINDIR)/mavistest
	rm -f $(DESTDIR)$(LIBDIR)/libmavis.so $(DESTDIR)$(LIBDIR)/libmavis.dylib
	test -z "$(LIBVERSION)" || rm -f $(DESTDIR)$(LIBDIR)/libmavis.so.*
	rm -rf $(DESTDIR)$(INCLUDEDIR)/tcprelay
	for page in `cd man && echo *`; do rm -f $(DESTDIR)$(MANDIR)/man[1-9]/$$page; done
	for sample in `cd samples && echo *`; do rm -f $(DESTDIR)$(EXAMPLESDIR)/$$sample; done
	for text in README.md CHANGELOG.md LICENSE LICENSE.crates migration.md; do rm -f $(DESTDIR)$(DOCDIR)/$$text; done
	rm -f $(DESTDIR)$(UNITDIR)/tcprelay.service $(DESTDIR)$(INITDIR)/tcprelay
	rm -f $(DESTDIR)$(SYSUSERSDIR)/tcprelay.conf $(DESTDIR)$(LAUNCHDIR)/$(LAUNCHLABEL).plist
	rm -f $(DESTDIR)$(SMFDIR)/tcprelay.xml $(DESTDIR)$(SMFMETHODDIR)/tcprelay
	-rmdir $(DESTDIR)$(MAVISDIR) 2>/dev/null
	-case $(LIBDIR) in */tcprelay) rmdir $(DESTDIR)$(LIBDIR) 2>/dev/null ;; esac
	-rmdir $(DESTDIR)$(EXAMPLESDIR) $(DESTDIR)$(DOCDIR) 2>/dev/null

# The tests of what this machine's kernel may lack, in a virtual one; the first run fetches it.
test-vm: deps-build
	sh tools/test-vm

# Big-endian s390x and powerpc64le under an emulator, and libkqueue; the first run fetches a toolchain.
test-kernels: deps-build
	sh tools/test-kernels

# What tests are too short for: reloads, killed and stopped workers, failing system calls under load.
soak: all
	python3 tools/soak --relay $(RELEASE)/tcprelay

# From seeds; SEED=N replays one that has failed, and TRACE=N shows so many lines of it.
simulate:
	SEEDS=$(SEEDS) SECONDS=$(SECONDS) FIRST=$(FIRST) SEED=$(SEED) TRACE=$(TRACE) \
		$(CARGO) test $(CARGOFLAGS) --target-dir $(BUILDDIR) --test simulation

# Plants mistakes, one at a time, in a copy of the source.
mutations:
	python3 tools/mutate

# Type-checks the other systems from Linux; the first run fetches a toolchain for that.
check-targets:
	sh tools/check-targets

# Builds and links for another system, and checks what its loader will look for.
cross:
	sh tools/cross $(TARGET)

fuzz:
	sh tools/fuzz

# The commit that is checked out, not what has been changed since.
vendor-tarball:
	sh tools/vendor-tarball $(BUILDDIR)/packages

deb: vendor-tarball
	sh tools/build-deb $(BUILDDIR)/packages

check-packages:
	sh tools/check-packages $(BUILDDIR)/packages

test-package: deb
	sh tools/test-package $(BUILDDIR)/packages

# The same in a container, where systemd runs.
test-package-systemd: deb
	sh tools/test-package-systemd $(BUILDDIR)/packages

# What relaying costs, beside other relays that are installed; benches/README.md tells more.
bench: all
	python3 benches/bench.py --relay tcprelay=$(BUILDDIR)/release/tcprelay

# The parts by themselves.
bench-micro:
	$(CARGO) bench $(CARGOFLAGS) --target-dir $(BUILDDIR) --bench micro

# Instructions of hot paths, compared with those that are kept in benches/instructions.tsv.
bench-instructions:
	CARGO_TARGET_DIR=$(BUILDDIR) sh tools/bench-instructions

clean:
	$(CARGO) clean --target-dir $(BUILDDIR)

.PHONY: all help deps-build deps demo check test test-vm test-kernels soak simulate mutations install install-systemd \
	install-sysv install-launchd install-smf deinstall check-targets cross fuzz vendor-tarball deb check-packages \
	test-package test-package-systemd bench bench-micro bench-instructions clean
