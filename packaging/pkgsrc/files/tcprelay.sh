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
start_precmd="tcprelay_check"
reload_precmd="tcprelay_check"

tcprelay_check()
{
	"$command" -P "$required_files"
}

load_rc_config $name
run_rc_command "$1"
