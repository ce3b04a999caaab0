package com.example.userintent;

import java.util.regex.Pattern;

/** Where a browser may be sent back to, by the gateway's rule (tests/conformance/authorization_urls.json). */
final class RedirectUri {
  private static final int LONGEST = 2048;
  private static final Pattern LABELS =
      Pattern.compile("(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*");
  private static final Pattern ENDS_AS_NUMBER = Pattern.compile("(.*\\.)?([0-9]+|0[xX][^.]*)");
  private static final String OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  private static final Pattern IPV4 = Pattern.compile(OCTET + "(\\." + OCTET + "){3}");
  private static final Pattern PORT = Pattern.compile(":[0-9]{1,5}");
  private static final Pattern PATH_AND_QUERY =
      Pattern.compile("([A-Za-z0-9._~:/?@\\[\\]!$&'()*+,;=-]++|%[0-9A-Fa-f]{2})*+");

  private RedirectUri() {}

  /**
   * {@code https://HOST[:PORT]}, or {@code http://HOST[:PORT]} on loopback, and then nothing, or a path or a query with
   * what RFC 3986 allows in it. No user, no fragment, nothing outside ASCII, and the scheme in small letters.
   */
  static boolean isValid(String uri) {
    boolean secure = uri.startsWith("https://");
    if (uri.length() > LONGEST || !secure && !uri.startsWith("http://")) {
      return false;
    }
    String rest = uri.substring(secure ? 8 : 7);
    int end = first(rest, "/?");
    String authority = rest.substring(0, end);
    int colon = authority.startsWith("[") ? authority.indexOf(']') + 1 : first(authority, ":");
    String host = authority.substring(0, colon);
    return isHost(host) && (secure || isLoopback(host)) && isPort(authority.substring(colon))
        && PATH_AND_QUERY.matcher(rest.substring(end)).matches();
  }

  /** The index of the first of these characters, or the end. */
  private static int first(String text, String characters) {
    int i = 0;
    while (i < text.length() && characters.indexOf(text.charAt(i)) < 0) {
      i++;
    }
    return i;
  }

  private static boolean isHost(String host) {
    if (host.startsWith("[")) {
      return isIpv6(host.substring(1, host.length() - 1));
    }
    // What ends in a number would be read as an address.
    return IPV4.matcher(host).matches()
        || host.length() <= 253 && LABELS.matcher(host).matches() && !ENDS_AS_NUMBER.matcher(host).matches();
  }

  /**
   * RFC 4291 section 2.2: up to eight groups, one gap of two or more zeros, an IPv4 address for the last two groups.
   */
  private static boolean isIpv6(String text) {
    int gap = text.indexOf("::");
    if (gap < 0) {
      return groups(text, true) == 8;
    }
    int before = gap == 0 ? 0 : groups(text.substring(0, gap), false);
    String rest = text.substring(gap + 2);
    int after = rest.isEmpty() ? 0 : groups(rest, true);
    return before >= 0 && after >= 0 && before + after <= 7;
  }

  /** How many groups of 16 bits; below 0: it is none. */
  private static int groups(String text, boolean mayEndInIpv4) {
    int count = 0;
    String[] parts = text.split(":", -1);
    for (int i = 0; i < parts.length; i++) {
      if (mayEndInIpv4 && i == parts.length - 1 && IPV4.matcher(parts[i]).matches()) {
        count += 2;
      } else if (parts[i].isEmpty() || parts[i].length() > 4 || !parts[i].chars().allMatch(RedirectUri::isHex)) {
        return -8;
      } else {
        count++;
      }
    }
    return count;
  }

  private static boolean isLoopback(String host) {
    return host.equalsIgnoreCase("localhost") || host.equals("[::1]")
        || host.startsWith("127.") && IPV4.matcher(host).matches();
  }

  private static boolean isPort(String text) {
    if (text.isEmpty()) {
      return true;
    }
    if (!PORT.matcher(text).matches()) {
      return false;
    }
    int port = Integer.parseInt(text.substring(1));
    return port >= 1 && port <= 65535;
  }

  private static boolean isHex(int c) {
    return Character.digit(c, 16) >= 0 && c < 0x80;
  }

  static boolean isAlnum(int c) {
    return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9';
  }
}
