package com.example.userintent;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.Signature;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Certificates and keys from PEM files. The messages of its exceptions name the file and hold nothing of it. */
final class Pem {
  private static final Pattern BLOCK = Pattern.compile("-----BEGIN ([A-Z0-9 ]+)-----([^-]+)-----END \\1-----");
  private static final byte[] VERSION_0 = {2, 1, 0};
  // rsaEncryption with its NULL, and id-ecPublicKey, which the curve follows.
  private static final byte[] RSA = {6, 9, 42, (byte) 0x86, 72, (byte) 0x86, (byte) 0xf7, 13, 1, 1, 1, 5, 0};
  private static final byte[] EC = {6, 7, 42, (byte) 0x86, 72, (byte) 0xce, 61, 2, 1};
  private static final int SEQUENCE = 0x30;
  private static final int OCTETS = 4;
  private static final int PARAMETERS = 0xa0;

  private Pem() {}

  static X509Certificate[] certificates(Path file) throws IOException, GeneralSecurityException {
    List<X509Certificate> found = new ArrayList<>();
    Matcher block = BLOCK.matcher(Files.readString(file, StandardCharsets.ISO_8859_1));
    while (block.find()) {
      if (block.group(1).equals("CERTIFICATE")) {
        found.add((X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(
            new ByteArrayInputStream(decode(block.group(2)))));
      }
    }
    if (found.isEmpty()) {
      throw new GeneralSecurityException("no certificate in it");
    }
    return found.toArray(new X509Certificate[0]);
  }

  /** The key of the certificate; fails when it is another one's. */
  static PrivateKey key(Path file, X509Certificate certificate) throws IOException, GeneralSecurityException {
    PublicKey other = certificate.getPublicKey();
    PrivateKey key = KeyFactory.getInstance(other.getAlgorithm()).generatePrivate(new PKCS8EncodedKeySpec(pkcs8(file)));
    if (!belongTogether(key, other)) {
      throw new GeneralSecurityException("the key is not the certificate's");
    }
    return key;
  }

  private static boolean belongTogether(PrivateKey key, PublicKey other) throws GeneralSecurityException {
    String name = key.getAlgorithm();
    switch (name) {
      case "EC":
        name = "SHA256withECDSA";
        break;
      case "RSA":
        name = "SHA256withRSA";
        break;
      default: // EdDSA is a key and a signature
    }
    Signature signature = Signature.getInstance(name);
    byte[] text = {1, 2, 3};
    signature.initSign(key);
    signature.update(text);
    byte[] signed = signature.sign();
    signature.initVerify(other);
    signature.update(text);
    return signature.verify(signed);
  }

  private static byte[] pkcs8(Path file) throws IOException, GeneralSecurityException {
    Matcher block = BLOCK.matcher(Files.readString(file, StandardCharsets.ISO_8859_1));
    while (block.find()) {
      switch (block.group(1)) {
        case "PRIVATE KEY":
          return decode(block.group(2));
        case "RSA PRIVATE KEY":
          return wrap(RSA, decode(block.group(2)));
        case "EC PRIVATE KEY":
          byte[] key = decode(block.group(2));
          return wrap(concat(EC, curve(key)), key);
        case "ENCRYPTED PRIVATE KEY":
          throw new GeneralSecurityException("the key is encrypted");
        default: // a certificate, or EC PARAMETERS
      }
    }
    throw new GeneralSecurityException("no private key in it, or an encrypted one");
  }

  private static byte[] decode(String text) throws GeneralSecurityException {
    try {
      return Base64.getMimeDecoder().decode(text);
    } catch (IllegalArgumentException damaged) {
      throw new GeneralSecurityException("not PEM", damaged);
    }
  }

  /** PKCS#8 (RFC 5208), the only form that Java reads, around the older forms (RFC 8017, RFC 5915). */
  private static byte[] wrap(byte[] algorithm, byte[] key) {
    return element(SEQUENCE, concat(VERSION_0, element(SEQUENCE, algorithm), element(OCTETS, key)));
  }

  /** The curve in an EC key: SEQUENCE {version, key, [0] curve, ...}. */
  private static byte[] curve(byte[] key) throws GeneralSecurityException {
    try {
      int at = content(key, 0);
      while ((key[at] & 0xff) != PARAMETERS) {
        at = content(key, at) + length(key, at);
      }
      return Arrays.copyOfRange(key, content(key, at), content(key, at) + length(key, at));
    } catch (IndexOutOfBoundsException | IllegalArgumentException damaged) {
      throw new GeneralSecurityException("an EC key without its curve", damaged);
    }
  }

  // DER of at most 64 KiB, which a key is not.

  private static int content(byte[] der, int at) {
    int first = der[at + 1] & 0xff;
    return at + 2 + (first < 0x80 ? 0 : first - 0x80);
  }

  private static int length(byte[] der, int at) {
    int length = der[at + 1] & 0xff;
    if (length >= 0x80) {
      length = 0;
      for (int i = at + 2; i < content(der, at); i++) {
        length = length << 8 | der[i] & 0xff;
      }
    }
    return length;
  }

  private static byte[] element(int tag, byte[] content) {
    int length = content.length;
    byte[] header = length < 0x80 ? new byte[] {(byte) tag, (byte) length}
                                  : new byte[] {(byte) tag, (byte) 0x82, (byte) (length >> 8), (byte) length};
    return concat(header, content);
  }

  private static byte[] concat(byte[]... parts) {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    for (byte[] part : parts) {
      all.writeBytes(part);
    }
    return all.toByteArray();
  }
}
