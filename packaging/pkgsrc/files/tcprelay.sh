#!@RCD_SCRIPTS_SHELL@
#
# $NetBSD$
#
# PROVIDE: tcprelay
# REQUIRE: DAEMON LOGIN
# KEYWORD: shutdown

. /etc/rc.subr

name="tcprelay"
rcvar=$name
command="@PREFIX@/sbin/$name"
pidfile="@VARBASE@/run/$name.pid"
required_files="@PKG_SYSCONFDIR@/$name.cfg"
command_args="-b -p $pidfile $required_files"
extra_commands="configtest reload"
configtest_cmd="tcprelay_check"
start_precmd="tcprelay_prestart"
reload_precmd="tcprelay_check"

tcprelay_check()
{
	"$command" -P "$required_files"
}

# Where tcprelayctl(8) expects the control socket.
tcprelay_prestart()
{
	mkdir -p /var/run/tcprelay
	tcprelay_check
}

load_rc_config $name
run_rc_command "$1"
