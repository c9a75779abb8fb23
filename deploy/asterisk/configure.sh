#!/bin/sh
# Writes Asterisk's configuration: every file of etc/ into the folder DEST, with @NAME@ replaced by $NAME.
# usage: configure.sh DEST
set -eu
here=$(cd "$(dirname "$0")" && pwd)
ARI_USERNAME=${RINGBACK_ASTERISK_USERNAME:-ringback}
ARI_PASSWORD=${RINGBACK_ASTERISK_PASSWORD:?set it in asterisk.env}
: "${ARI_ADDRESS:=0.0.0.0}" "${ARI_PORT:=8088}" "${AMI_PORT:=5038}"
: "${SIP_ADDRESS:=0.0.0.0}" "${SIP_PORT:=5060}" "${RTP_FIRST:=10000}" "${RTP_LAST:=10099}"
: "${PUBLIC_ADDRESS:=}" "${PHONE_PASSWORD:=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}"
case "$ARI_USERNAME$ARI_PASSWORD$PUBLIC_ADDRESS$PHONE_PASSWORD" in
  *[!A-Za-z0-9._-]*) echo "user names and passwords may hold A-Z a-z 0-9 . _ - only: openssl rand -hex 16" >&2; exit 1 ;;
esac
script=
for name in ARI_USERNAME ARI_PASSWORD ARI_ADDRESS ARI_PORT AMI_PORT SIP_ADDRESS SIP_PORT RTP_FIRST RTP_LAST PUBLIC_ADDRESS \
  PHONE_PASSWORD; do
  eval "value=\$$name"
  script="$script;s|@$name@|$value|g"
done
# Lines that still need a value that was not given are left out.
[ -n "$PUBLIC_ADDRESS" ] || script="$script;/^external_/d;/^local_net/d"
umask 077
for file in "$here"/etc/*.conf; do
  sed -e "${script#;}" "$file" > "$1/$(basename "$file")"
done
