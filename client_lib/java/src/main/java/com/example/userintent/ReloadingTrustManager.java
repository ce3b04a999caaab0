package com.example.userintent;

import java.io.IOException;
import java.net.Socket;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedTrustManager;

/**
 * Java's own check of certificates against the authorities of a file, which is read again at every handshake. A file
 * that cannot be used leaves the last ones in force. Any thread may use it.
 */
final class ReloadingTrustManager extends X509ExtendedTrustManager {
  private final Path caFile;
  private volatile X509ExtendedTrustManager current;

  ReloadingTrustManager(Path caFile) {
    this.caFile = caFile;
    try {
      current = read();
    } catch (IOException | GeneralSecurityException problem) {
      throw new IllegalArgumentException("cannot use " + caFile + ": " + problem, problem);
    }
  }

  private X509ExtendedTrustManager read() throws IOException, GeneralSecurityException {
    KeyStore authorities = KeyStore.getInstance(KeyStore.getDefaultType());
    authorities.load(null, null);
    int number = 0;
    for (X509Certificate authority : Pem.certificates(caFile)) {
      authorities.setCertificateEntry("ca-" + number++, authority);
    }
    TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    factory.init(authorities);
    for (TrustManager manager : factory.getTrustManagers()) {
      if (manager instanceof X509ExtendedTrustManager) {
        return (X509ExtendedTrustManager) manager;
      }
    }
    throw new GeneralSecurityException("this Java has no X509ExtendedTrustManager");
  }

  private X509ExtendedTrustManager fresh() {
    try {
      current = read();
    } catch (IOException | GeneralSecurityException half) {
      // The last ones stay.
    }
    return current;
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType, SSLEngine engine)
      throws CertificateException {
    fresh().checkServerTrusted(chain, authType, engine); // with the engine it checks the host name, too
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType, Socket socket) throws CertificateException {
    fresh().checkServerTrusted(chain, authType, socket);
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType) throws CertificateException {
    throw new CertificateException("a check without a connection would leave out the host name");
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType, SSLEngine engine)
      throws CertificateException {
    throw new CertificateException("these authorities are a client's");
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType, Socket socket) throws CertificateException {
    throw new CertificateException("these authorities are a client's");
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType) throws CertificateException {
    throw new CertificateException("these authorities are a client's");
  }

  @Override
  public X509Certificate[] getAcceptedIssuers() {
    return current.getAcceptedIssuers();
  }
}
