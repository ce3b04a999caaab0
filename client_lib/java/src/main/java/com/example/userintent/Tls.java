package com.example.userintent;

import io.grpc.ChannelCredentials;
import io.grpc.TlsChannelCredentials;
import java.nio.file.Path;
import java.util.Objects;

/**
 * The files (PEM) that protect the connection. They are read again for every new connection (the gateway ends one after
 * 30 minutes), so a certificate that was replaced is used without a restart. Files that cannot be used, say because
 * only the key was replaced so far, leave those in force that were read before. Immutable; any thread may use it.
 *
 * <p>Keys: PKCS#8 (BEGIN PRIVATE KEY), RSA (BEGIN RSA PRIVATE KEY) or EC (BEGIN EC PRIVATE KEY), not encrypted.
 */
public final class Tls {
  private final Path caFile; // null: the system's
  private final Path certFile; // null with keyFile: no client certificate
  private final Path keyFile;
  private final String serverName; // null: the target's host

  private Tls(Path caFile, Path certFile, Path keyFile, String serverName) {
    this.caFile = caFile;
    this.certFile = certFile;
    this.keyFile = keyFile;
    this.serverName = serverName;
  }

  /**
   * Mutual TLS, which every gateway off the loopback asks for.
   *
   * @param caFile the authorities that the gateway's certificate is checked against
   * @param certFile this program's certificate, with its chain
   * @param keyFile the key of that certificate
   * @return the files
   */
  public static Tls mutual(Path caFile, Path certFile, Path keyFile) {
    return trusting(caFile).withCertificate(certFile, keyFile);
  }

  /**
   * Without a client certificate.
   *
   * @param caFile the authorities that the gateway's certificate is checked against
   * @return the files
   */
  public static Tls trusting(Path caFile) {
    return new Tls(Objects.requireNonNull(caFile, "caFile"), null, null, null);
  }

  /**
   * With the authorities that the Java runtime trusts, and without a client certificate.
   *
   * @return no files
   */
  public static Tls trustingSystem() {
    return new Tls(null, null, null, null);
  }

  /**
   * Adds a client certificate.
   *
   * @param certFile this program's certificate, with its chain
   * @param keyFile the key of that certificate
   * @return a copy with it
   */
  public Tls withCertificate(Path certFile, Path keyFile) {
    return new Tls(
        caFile, Objects.requireNonNull(certFile, "certFile"), Objects.requireNonNull(keyFile, "keyFile"), serverName);
  }

  /**
   * The name in the gateway's certificate, where it is not the host of the target.
   *
   * @param serverName a host name
   * @return a copy with it
   */
  public Tls withServerName(String serverName) {
    return new Tls(caFile, certFile, keyFile, Objects.requireNonNull(serverName, "serverName"));
  }

  /**
   * Reads the files. For a channel of your own; {@link #withServerName} has to be said there by
   * {@code overrideAuthority}.
   *
   * @return credentials that read the files again for every new connection
   * @throws IllegalArgumentException when the files cannot be used, naming the file
   */
  public ChannelCredentials credentials() {
    TlsChannelCredentials.Builder credentials = TlsChannelCredentials.newBuilder();
    if (certFile != null) {
      credentials.keyManager(new ReloadingKeyManager(certFile, keyFile));
    }
    if (caFile != null) {
      credentials.trustManager(new ReloadingTrustManager(caFile));
    }
    return credentials.build();
  }

  String serverName() {
    return serverName;
  }
}
