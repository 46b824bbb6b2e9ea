import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.errors.TopicExistsException;

/** Makes a topic as soon as the broker answers: java MakeTopic.java ADDRESS TOPIC PARTITIONS. */
public final class MakeTopic {
  public static void main(String[] args) throws Exception {
    Map<String, Object> settings =
        Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 60_000);
    NewTopic topic = new NewTopic(args[1], Integer.parseInt(args[2]), (short) 1);
    try (Admin admin = Admin.create(settings)) {
      admin.createTopics(List.of(topic)).all().get();
    } catch (ExecutionException error) {
      if (!(error.getCause() instanceof TopicExistsException)) {
        throw error;
      }
    }
  }
}
