package com.example.conformance;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Performs the scenarios of a plan with the Java library (../README.md): [--blocking|--async] PLAN. One thread, but
 * for storms.
 */
public final class Main {
  private Main() {}

  /** Prints a line for each scenario; exits with 0 only when all passed. */
  public static void main(String[] words) throws Exception {
    boolean async = words.length == 2 && words[0].equals("--async");
    JsonObject plan = JsonParser.parseString(Files.readString(Path.of(words[words.length - 1]), StandardCharsets.UTF_8))
                          .getAsJsonObject();
    int passed = 0;
    int failed = 0;
    for (JsonElement element : plan.getAsJsonArray("scenarios")) {
      JsonObject scenario = element.getAsJsonObject();
      String why = new Scenario(plan, scenario, async).run();
      String name = scenario.get("name").getAsString();
      if (why == null) {
        passed++;
        System.out.println("ok " + name);
      } else {
        failed++;
        System.out.println("FAILED " + name + ": " + why);
      }
    }
    System.out.println(passed + " passed, " + failed + " failed");
    System.exit(failed == 0 && passed > 0 ? 0 : 1);
  }
}
