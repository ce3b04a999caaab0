package com.example.userintent;

import static com.example.userintent.FakeGateway.person;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.Grpc;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.TlsServerCredentials;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import javax.net.ssl.SSLPeerUnverifiedException;
import javax.net.ssl.SSLSession;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Certificates of this test sign themselves and are trusted one by one. */
@Timeout(60)
class TlsTest {
  private static final class Pair {
    X509Certificate certificate;
    PrivateKey key;
  }

  private static final AtomicReference<String> CALLER = new AtomicReference<>();

  @TempDir static Path dir;

  private static Pair gatewayPair;
  private static Pair first;
  private static Pair second;
  private static Pair rsa;
  private static Server server;

  private static Pair pair(String name, String... keyType) throws Exception {
    Path store = dir.resolve(name + ".p12");
    List<String> command = new java.util.ArrayList<>(
        List.of(System.getProperty("keytool", Path.of(System.getProperty("java.home"), "bin", "keytool").toString()),
            "-genkeypair", "-alias", "x", "-keystore", store.toString(), "-storetype", "PKCS12", "-storepass", "secret",
            "-dname", "CN=" + name, "-validity", "2", "-ext", "san=dns:localhost"));
    command.addAll(List.of(keyType));
    Process keytool = new ProcessBuilder(command).redirectErrorStream(true).start();
    String said = new String(keytool.getInputStream().readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
    assertEquals(0, keytool.waitFor(), said);
    KeyStore keys = KeyStore.getInstance("PKCS12");
    try (InputStream in = Files.newInputStream(store)) {
      keys.load(in, "secret".toCharArray());
    }
    Pair pair = new Pair();
    pair.certificate = (X509Certificate) keys.getCertificate("x");
    pair.key = (PrivateKey) keys.getKey("x", "secret".toCharArray());
    return pair;
  }

  private static Path pem(String file, String label, byte[] der) throws IOException {
    String text = "-----BEGIN " + label + "-----\n" + Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(der)
        + "\n-----END " + label + "-----\n";
    Path path = dir.resolve(file);
    Files.writeString(path, text);
    return path;
  }

  private static Path certificate(String file, Pair pair) throws Exception {
    return pem(file, "CERTIFICATE", pair.certificate.getEncoded());
  }

  private static Path key(String file, Pair pair) throws IOException {
    return pem(file, "PRIVATE KEY", pair.key.getEncoded());
  }

  @BeforeAll
  static void start() throws Exception {
    gatewayPair = pair("gateway", "-keyalg", "EC", "-groupname", "secp256r1");
    first = pair("first", "-keyalg", "EC", "-groupname", "secp256r1");
    second = pair("second", "-keyalg", "EC", "-groupname", "secp384r1");
    rsa = pair("rsa", "-keyalg", "RSA", "-keysize", "2048");
    Path callers = dir.resolve("callers.pem");
    for (Pair caller : List.of(first, second, rsa)) {
      try (OutputStream out = Files.newOutputStream(
               callers, java.nio.file.StandardOpenOption.CREATE, java.nio.file.StandardOpenOption.APPEND)) {
        Files.copy(certificate("one.pem", caller), out);
      }
    }
    File serverCert = certificate("server.crt", gatewayPair).toFile();
    server =
        Grpc.newServerBuilderForPort(0,
                TlsServerCredentials.newBuilder()
                    .keyManager(serverCert, key("server.key", gatewayPair).toFile())
                    .trustManager(callers.toFile())
                    .clientAuth(TlsServerCredentials.ClientAuth.REQUIRE)
                    .build())
            .addService(new FakeGateway())
            .intercept(new ServerInterceptor() {
              @Override
              public <Q, P> ServerCall.Listener<Q> interceptCall(
                  ServerCall<Q, P> call, Metadata headers, ServerCallHandler<Q, P> next) {
                try {
                  SSLSession session = call.getAttributes().get(Grpc.TRANSPORT_ATTR_SSL_SESSION);
                  CALLER.set(((X509Certificate) session.getPeerCertificates()[0]).getSubjectX500Principal().getName());
                } catch (SSLPeerUnverifiedException unknown) {
                  CALLER.set("nobody");
                }
                return next.startCall(new SimpleForwardingServerCall<>(call) {}, headers);
              }
            })
            .build()
            .start();
  }

  @AfterAll
  static void stop() {
    server.shutdownNow();
  }

  private static UserIntentClient client(Tls tls) {
    return UserIntentClient.builder("127.0.0.1:" + server.getPort()).tls(tls.withServerName("localhost")).build();
  }

  private static String caller(Tls tls) {
    try (UserIntentClient client = client(tls)) {
      client.createUserIntent(person());
      return CALLER.get();
    }
  }

  private static void refused(UserIntentClient.Builder builder) {
    try (UserIntentClient client = builder.build()) {
      UserIntentException error = assertThrows(UserIntentException.class, () -> client.createUserIntent(person()));
      assertEquals(io.grpc.Status.Code.UNAVAILABLE, error.getCode());
    }
  }

  @Test
  void mutual() throws Exception {
    assertEquals("CN=first",
        caller(Tls.mutual(certificate("ca.m", gatewayPair), certificate("m.crt", first), key("m.key", first))));
  }

  @Test
  void aGatewayThatIsNotTrustedOrHasAnotherNameIsRefused() throws Exception {
    Tls tls = Tls.mutual(certificate("ca.r", gatewayPair), certificate("r.crt", first), key("r.key", first));
    String target = "127.0.0.1:" + server.getPort();
    refused(UserIntentClient.builder(target).tls(tls)); // its certificate is for localhost
    refused(UserIntentClient.builder(target).tls(tls.withServerName("elsewhere.example.com")));
    Tls distrusting = Tls.mutual(certificate("ca.d", second), certificate("d.crt", first), key("d.key", first));
    refused(UserIntentClient.builder(target).tls(distrusting.withServerName("localhost")));
    refused(UserIntentClient.builder(target).tls(Tls.trustingSystem().withServerName("localhost")));
  }

  @Test
  void withoutACertificateThereIsNoCall() throws Exception {
    try (UserIntentClient client = client(Tls.trusting(certificate("ca.w", gatewayPair)))) {
      assertTrue(assertThrows(UserIntentException.class, () -> client.createUserIntent(person())).isMaybeSent());
    }
  }

  @Test
  void replacedFilesAreUsedForTheNextConnectionAndHalfAPairIsNot() throws Exception {
    Tls tls = Tls.mutual(certificate("ca.n", gatewayPair), certificate("n.crt", first), key("n.key", first));
    io.grpc.ChannelCredentials credentials = tls.credentials(); // one key manager for all the connections below
    assertEquals("CN=first", callerOf(credentials));
    key("n.key", second);
    assertEquals("CN=first", callerOf(credentials)); // the key is not yet the certificate's
    certificate("n.crt", second);
    assertEquals("CN=second", callerOf(credentials));
    Files.delete(dir.resolve("n.key"));
    Files.writeString(dir.resolve("ca.n"), "");
    assertEquals("CN=second", callerOf(credentials));
    certificate("ca.n", second); // another authority than the gateway's
    io.grpc.ManagedChannel channel = UserIntentClient.channelBuilder("127.0.0.1:" + server.getPort(), credentials)
                                         .overrideAuthority("localhost")
                                         .build();
    assertThrows(UserIntentException.class, () -> UserIntentClient.builder(channel).build().createUserIntent(person()));
    channel.shutdownNow();
  }

  private static String callerOf(io.grpc.ChannelCredentials credentials) {
    io.grpc.ManagedChannel channel = UserIntentClient.channelBuilder("127.0.0.1:" + server.getPort(), credentials)
                                         .overrideAuthority("localhost")
                                         .build();
    UserIntentClient.builder(channel).build().createUserIntent(person());
    channel.shutdownNow();
    return CALLER.get();
  }

  @Test
  void olderFormsOfKeysAreRead() throws Exception {
    Path ca = certificate("ca.o", gatewayPair);
    byte[] pkcs8 = rsa.key.getEncoded(); // SEQUENCE {0, algorithm, OCTET STRING}: its last element is the RSA key
    assertEquals("CN=rsa", caller(Tls.mutual(ca, certificate("o.crt", rsa), key("o8.key", rsa))));
    assertEquals("CN=rsa",
        caller(Tls.mutual(ca, certificate("o.crt", rsa), pem("o1.key", "RSA PRIVATE KEY", inner(pkcs8, 26)))));
    // Java leaves the curve out of the inner key, OpenSSL puts it in: SEQUENCE {1, OCTET STRING, [0] curve}.
    byte[] bare = inner(first.key.getEncoded(), 28);
    byte[] curve = {(byte) 0xa0, 10, 6, 8, 42, (byte) 0x86, 72, (byte) 0xce, 61, 3, 1, 7};
    ByteArrayOutputStream sec1 = new ByteArrayOutputStream();
    sec1.write(0x30);
    sec1.write(bare[1] + curve.length);
    sec1.write(bare, 2, 2 + 1 + 2 + 32);
    sec1.write(curve);
    assertEquals("CN=first",
        caller(Tls.mutual(ca, certificate("oe.crt", first), pem("oe.key", "EC PRIVATE KEY", sec1.toByteArray()))));
  }

  private static byte[] inner(byte[] pkcs8, int at) {
    return Arrays.copyOfRange(pkcs8, at, pkcs8.length);
  }

  @Test
  void unusableFilesAreNamedAndNotShown() throws Exception {
    Path ca = certificate("ca.u", gatewayPair);
    Path crt = certificate("u.crt", first);
    Path other = key("u.key", second);
    Path garbage = pem("garbage.key", "PRIVATE KEY", "canary".getBytes(java.nio.charset.StandardCharsets.UTF_8));
    Path encrypted = pem("encrypted.key", "ENCRYPTED PRIVATE KEY", new byte[5]);
    Path brokenEc = pem("broken.key", "EC PRIVATE KEY", new byte[] {0x30, 3, 2, 1, 1});
    Path missing = dir.resolve("missing");
    for (Path bad : List.of(other, garbage, encrypted, brokenEc, missing, ca)) {
      IllegalArgumentException error =
          assertThrows(IllegalArgumentException.class, () -> Tls.mutual(ca, crt, bad).credentials());
      assertTrue(error.getMessage().contains(bad.toString()), error.getMessage());
      assertFalse(error.getMessage().contains("canary"));
    }
    assertInstanceOf(java.security.GeneralSecurityException.class,
        assertThrows(IllegalArgumentException.class, () -> Tls.trusting(other).credentials()).getCause());
  }
}
