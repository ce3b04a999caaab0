package com.example.userintent;

import java.io.IOException;
import java.net.Socket;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.concurrent.atomic.AtomicReference;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedKeyManager;

/**
 * A client certificate and its key, read again at every handshake. A pair that cannot be used leaves the last one in
 * force. Any thread may use it. (gRPC's AdvancedTlsX509KeyManager needs a thread, and takes a key that is not the
 * certificate's.)
 */
final class ReloadingKeyManager extends X509ExtendedKeyManager {
  private static final class Pair {
    final String alias;
    final X509Certificate[] chain;
    final PrivateKey key;
    Pair before; // a handshake that began with it may still ask for its parts

    Pair(int number, X509Certificate[] chain, PrivateKey key) {
      this.alias = "client-" + number;
      this.chain = chain;
      this.key = key;
    }
  }

  private final Path certFile;
  private final Path keyFile;
  private final AtomicReference<Pair> current = new AtomicReference<>();
  private int number;

  ReloadingKeyManager(Path certFile, Path keyFile) {
    this.certFile = certFile;
    this.keyFile = keyFile;
    try {
      load();
    } catch (IOException | GeneralSecurityException problem) {
      throw new IllegalArgumentException("cannot use " + certFile + " with " + keyFile + ": " + problem, problem);
    }
  }

  private synchronized Pair load() throws IOException, GeneralSecurityException {
    X509Certificate[] chain = Pem.certificates(certFile);
    Pair pair = new Pair(number++, chain, Pem.key(keyFile, chain[0]));
    Pair before = current.get();
    if (before != null) {
      before.before = null;
    }
    pair.before = before;
    current.set(pair);
    return pair;
  }

  private String choose() {
    try {
      return load().alias;
    } catch (IOException | GeneralSecurityException half) {
      return current.get().alias;
    }
  }

  private Pair named(String alias) {
    Pair pair = current.get();
    Pair before = pair.before;
    return before != null && before.alias.equals(alias) ? before : pair;
  }

  @Override
  public String chooseEngineClientAlias(String[] keyTypes, Principal[] issuers, SSLEngine engine) {
    return choose();
  }

  @Override
  public String chooseClientAlias(String[] keyTypes, Principal[] issuers, Socket socket) {
    return choose();
  }

  @Override
  public X509Certificate[] getCertificateChain(String alias) {
    return named(alias).chain.clone();
  }

  @Override
  public PrivateKey getPrivateKey(String alias) {
    return named(alias).key;
  }

  @Override
  public String[] getClientAliases(String keyType, Principal[] issuers) {
    return new String[] {current.get().alias};
  }

  @Override
  public String[] getServerAliases(String keyType, Principal[] issuers) {
    return new String[0];
  }

  @Override
  public String chooseServerAlias(String keyType, Principal[] issuers, Socket socket) {
    return null; // these are a client's
  }
}
