#!/bin/sh
# pack.sh DIRECTORY PROGRAM...: copies the programs and all that they need to run out of this Debian into DIRECTORY, which is
# then an image's root: shared libraries, the loader, certificate authorities, the licences, and for scanners what dpkg knows
# of the packages that all this came from. No shell, no package manager. A library that is missing fails it.
# Writes DIRECTORY.files: a line for each file, with tabs: path, SHA-256, package, version, architecture, source package, its
# version; a package of - for what is our own.
set -eu
root=$1
shift
list=$root.files
mkdir -p "$root"/usr/lib "$root"/usr/lib64 "$root"/etc/ssl/certs "$root"/var/lib/dpkg/status.d
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
: >"$list"

# own FILE: the package that a file of this Debian is of; nothing where it is of none
own() { dpkg-query -S "$1" 2>/dev/null | sed -n '1s/: .*//p' | cut -d, -f1; }

# note PATH PACKAGE: a line for the file that is at PATH in the new root
note() {
  sum=$(sha256sum "$root$1" | cut -d' ' -f1)
  if [ "$2" = - ]; then
    printf '%s\t%s\t-\t\t\t\t\n' "$1" "$sum" >>"$list"
  else
    # shellcheck disable=SC2016 # dpkg-query's own variables
    printf '%s\t%s\t%s\n' "$1" "$sum" \
      "$(dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}' "$2")" >>"$list"
  fi
}

# take FILE [PACKAGE]: copies it to the same place; a link becomes the file that it leads to
take() {
  [ ! -e "$root$1" ] || return 0
  case $1 in /lib/* | /lib64/*) place=/usr$1 ;; *) place=$1 ;; esac # which /lib and /lib64 lead to
  mkdir -p "$root$(dirname "$place")"
  cp -L --preserve=mode "$1" "$root$place"
  package=${2:-$(own "$(readlink -f "$1")")}
  [ -n "$package" ] || { echo "$1 is of no package" >&2; exit 1; }
  note "$place" "$package"
}

for program in "$@"; do
  needs=$(ldd "$program")
  case $needs in *'not found'*) echo "$program: $needs" >&2; exit 1 ;; esac
  install -D -m 0755 "$program" "$root$program"
  note "$program" -
  for library in $(printf '%s\n' "$needs" | sed -n 's/.* => \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/lib64[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/lib\/ld-[^ ]*\).*/\1/p'); do
    take "$library"
  done
done
# The authorities that Astra's certificate is checked against; OpenSSL's own defaults.
take /etc/ssl/certs/ca-certificates.crt ca-certificates
take /etc/ssl/openssl.cnf openssl
mkdir -p "$root/usr/lib/ssl"
ln -s /etc/ssl/certs "$root/usr/lib/ssl/certs"
ln -s /etc/ssl/openssl.cnf "$root/usr/lib/ssl/openssl.cnf"
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
take /etc/os-release base-files

printf 'root:x:0:0:root:/:/nonexistent\nuserintent:x:10001:10001::/nonexistent:/nonexistent\n' >"$root/etc/passwd"
printf 'root:x:0:\nuserintent:x:10001:\n' >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
for file in passwd group nsswitch.conf; do note "/etc/$file" -; done
install -d -m 1777 "$root/tmp"
install -d -o 10001 -g 10001 -m 0700 "$root/var/lib/userintent"

cut -f3 "$list" | grep -v '^-$' | sort -u | while read -r package; do
  dpkg-query -s "$package" >"$root/var/lib/dpkg/status.d/$package"
  if [ -e "/usr/share/doc/$package/copyright" ]; then
    mkdir -p "$root/usr/share/doc/$package"
    cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
  fi
done
du -sh "$root" | sed 's/^/the root is: /'
