/* What a run of qprd tells, and what it is told; all of this needs no window. */

import com.google.gson.Gson
import com.google.gson.JsonParseException

import java.nio.file.Files
import java.nio.file.Path
import java.time.OffsetDateTime
import java.util.concurrent.TimeUnit

/** A run of qprd by its events (docs/events.md): how far it is, what it said, and how it ended. */
class Run {
    String command = ''
    Long process
    OffsetDateTime began
    String task = ''
    long done, total
    String error
    Integer exitCode
    boolean stopAsked
    // What the command made, and ids of the images whose results were written so far.
    Map result = [:]
    final List<String> written = []
    final List<String> log = []
    private String pace = ''
    private final List<String> warnings = []

    /** Take in a line; what is no event, or an unknown one, is passed over. */
    void accept(String line) {
        Map event = null
        try {
            event = new Gson().fromJson(line, Map)
        } catch (JsonParseException ignored) {
            // The beginning of a line whose writer was killed.
        }
        if (event?.event == null) {
            return
        }
        switch (event.event) {
            case 'started':
                (command, process, began) = [event.command, event.process as Long, OffsetDateTime.parse(event.time as String)]
                break
            case 'progress':
                (task, done, total) = [event.task, event.done as long, event.total as long]
                pace = done < total && event.seconds_left != null ? paceOf(event) : ''
                break
            case 'epoch':
                log << "Epoch ${event.epoch as int} of ${event.epochs as int}: loss ${event.loss}".toString()
                break
            case 'slide':
                def contours = event.contours as Integer
                def found = contours == null ? 'could not be scored' : "${contours} tumor contour${contours == 1 ? '' : 's'}"
                log << "${event.image}: ${found}".toString()
                break
            case 'message':
            case 'stopped':
                log << (event.message as String)
                break
            case 'written':
                written << (event.entry as String)
                break
            case 'result':
                result = event.content
                log.addAll(event.lines as List<String>)
                break
            case 'warning':
                warnings << (event.message as String)
                log << "Note: ${event.message}".toString()
                break
            case 'error':
                error = [event.message, event.where ? "(${event.where})" : null, event.fix].findAll().join('\n')
                log << error
                break
            case 'finished':
                exitCode = event.exit_code as int
                break
        }
    }

    /** How far the task is, 0 to 1, or -1 where that is not known. */
    double fraction() {
        total > 0 ? (done / total) as double : -1
    }

    /** What is done now, at which rate, and the time left. */
    String status() {
        def doing = [train: 'Training', predict: 'Predicting', evaluate: 'Evaluating', undo: 'Taking back'][command] ?: command
        def step = task.equalsIgnoreCase(doing) ? doing : "${doing}: ${task}"
        stopAsked ? "${doing}: stopping; what was computed is kept" : task ? "${step}, ${done} of ${total}${pace}" : "${doing}: starting"
    }

    private static String paceOf(Map event) {
        def rate = event.rate as double
        def units = event.unit == 'patch' ? 'patches' : "${event.unit ?: 'piece'}s"
        sprintf(rate >= 1 ? ', %.0f %s a second, %s left' : ', %.1f %s a minute, %s left', rate >= 1 ? rate : 60 * rate, units,
                lasting(event.seconds_left as double))
    }

    /** Null while it runs, else done, partly (something was left out), stopped, failed or died. */
    String end(boolean alive) {
        if (exitCode == null) {
            return alive ? null : stopAsked ? 'stopped' : 'died'
        }
        exitCode == 0 ? 'done' : exitCode in [130, 143] ? 'stopped' : error == null ? 'partly' : 'failed'
    }

    /** What to tell of an end. */
    String sentence(String end) {
        def kept = canResume(end) ? ' What was computed is kept.' : ''
        switch (end) {
            case 'done':
                return [train: 'The model is trained. Predict finds tumor with it.', predict: 'The results are here.',
                        evaluate: 'The results are compared with what is drawn: see Page of the evaluation.', undo: 'The last results are taken back.'][command] ?: 'Done.'
            case 'partly':
                return "Not everything could be done.\n${warnings ? warnings.takeRight(3).join('\n') : 'The log says what.'}"
            case 'stopped':
                return 'Stopped.' + kept
            case 'died':
                return process == null ? 'qprd did not start. The log has what it said.' : 'qprd ended without a word: it was killed, or the computer ran out of memory.' + kept
        }
        error
    }

    boolean canResume(String end) {
        end in ['stopped', 'died'] && command in ['train', 'predict'] && process != null
    }

    static String lasting(double seconds) {
        seconds < 90 ? "${Math.round(seconds)} s" : seconds < 5400 ? "${Math.round(seconds / 60)} min" : sprintf('%.1f h', seconds / 3600)
    }
}

/** The command line of qprd; each goes to the system as it is, so that none needs quotes. */
class CommandLine {
    /**
     * @param chosen What was chosen in the window, by name; blank leaves it to qprd.
     * @param more Words of this run alone, such as --resume or --image NAME.
     */
    static List<String> of(List<String> qprd, String command, Path project, Map<String, String> chosen, List<String> more = []) {
        def words = qprd + [command, project.toString(), '--backend', 'exchange']
        def add = { String option, value -> if (value?.toString()?.strip()) { words.addAll([option, value.toString().strip()]) } }
        def resumes = more.contains('--resume')
        if (command in ['train', 'predict']) {
            def config = project.resolveSibling('qprd.toml')
            if (!resumes && Files.isRegularFile(config)) {
                add('--config', config)
            }
            add('--device', chosen.device)
        }
        if (command in ['train', 'status', 'doctor'] && !resumes) {
            [tumor: chosen.tumorClass, normal: chosen.normalClass].each { kind, names ->
                names?.split(',')?.each { add("--${kind}-class", it) }
            }
        }
        if (command == 'train' && !resumes) {
            add('--teacher', chosen.network)
            add('--normal', chosen.normal)
            add('--tumor', chosen.tumor)
            def share = chosen.sensitivity?.replace(',', '.')?.replace('%', '')?.strip()
            add('--operating-point', share ? "sensitivity=${(share as BigDecimal) > 1 ? (share as BigDecimal) / 100 : share}" : '')
        } else if (command == 'predict') {
            words << '--write-back'
            add('--uncertain', chosen.uncertain)
        }
        (words + '--events' + more)*.toString()
    }

    /** A process that starts in the folder of its program: a stranger's project may hold a module named qprd. */
    static ProcessBuilder process(List<String> words) {
        def builder = new ProcessBuilder(words).directory(Path.of(words[0]).toAbsolutePath().getParent().toFile())
        builder.environment().put('PYTHONUTF8', '1')
        builder
    }

    /** What a command says of its version, such as "qprd 0.1.0"; null if it is not qprd. */
    static String versionOf(List<String> qprd) {
        try {
            def started = process(qprd + '--version').redirectErrorStream(true).start()
            started.getOutputStream().close()
            if (!started.waitFor(60, TimeUnit.SECONDS)) {
                started.destroy()
            }
            started.getInputStream().readLines('UTF-8').find { it ==~ /qprd \S+/ }
        } catch (IOException ignored) {
            null
        }
    }

    /** The command of qprd: the one that was chosen, that of the installation, or the first on the PATH; else null. */
    static List<String> find(String chosen, List<String> installed, String path, boolean windows) {
        if (chosen && Files.isRegularFile(Path.of(chosen))) {
            return [chosen]
        }
        if (installed && Files.isRegularFile(Path.of(installed[0]))) {
            return installed
        }
        def name = windows ? 'qprd.exe' : 'qprd'
        def found = (path ?: '').split(File.pathSeparator).findAll().collect { Path.of(it.replace('"', '')).resolve(name) }.find { Files.isExecutable(it) }
        found == null ? null : [found.toString()]
    }
}

/** What is told of a project, from what "qprd status --drawn" and "qprd doctor" found. */
class Findings {
    /** What the next training would use, from the results of the status. */
    static String nextTraining(List<Map> images, String newest) {
        def drawn = images.findAll { (it.tumor ?: 0) + (it.normal ?: 0) > 0 }
        if (!drawn.any { it.tumor }) {
            return 'Draw tumor in some images, and normal tissue, to train on.'
        }
        def roles = [train: 'to learn from', val: 'to choose the threshold on', test: 'kept for the evaluation']
        def told = drawn.countBy { roles[it.split] ?: 'whose use qprd chooses' }.collect { role, count -> "${count} ${role}" }
        "Something is drawn on ${drawn.size()} of ${images.size()} images: ${told.join(', ')}." +
                (newest ? " The newest model is ${newest}." : ' There is no model yet.')
    }

    /**
     * Findings of the doctor that are about the project, or that nothing works with. What the window has buttons
     * for is left out.
     */
    static List<Map> warnings(List<Map> checks) {
        def project = checks.findIndexOf { it.subject == 'project' }
        checks.withIndex().findAll { check, index ->
            def hasButton = check.subject == 'written back' || check.fix?.contains('--resume') || check.fix?.startsWith('qprd predict ')
            check.status == 'FAIL' || check.status == 'WARN' && index >= project && !hasButton
        }*.get(0)
    }
}
