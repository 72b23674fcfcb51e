#!@SMF_METHOD_SHELL@
# The method of the service: tcprelay start|refresh CONFIGURATION

. /lib/svc/share/smf_include.sh

program=@PREFIX@/sbin/tcprelay
pid_file=@VARBASE@/run/tcprelay.pid
configuration=$2

if [ ! -r "$configuration" ]; then
    echo "there is no $configuration"
    exit "$SMF_EXIT_ERR_CONFIG"
fi
# The program prints what is wrong.
"$program" -P "$configuration" || exit "$SMF_EXIT_ERR_CONFIG"

case $1 in
start)
    # Each session needs two events on its worker's port; the default limit is 65536.
    prctl -n process.max-port-events -v 1048576 -r -t privileged -i process $$ || true
    # Where tcprelayctl(8) expects the control socket.
    mkdir -p /var/run/tcprelay
    # It returns when the service is ready.
    "$program" -b -p "$pid_file" "$configuration" || exit "$SMF_EXIT_ERR_FATAL"
    ;;
refresh)
    kill -HUP "$(cat "$pid_file")" || exit "$SMF_EXIT_ERR_FATAL"
    ;;
*)
    echo "usage: $0 start|refresh CONFIGURATION"
    exit "$SMF_EXIT_ERR_CONFIG"
    ;;
esac
exit "$SMF_EXIT_OK"
