/*
 * qprd: the window
 *
 * Opens a small window that stays: train on what you have drawn, find tumor in this image or in all, look at the
 * heatmap, move the threshold, review, and train again. qprd works as a program of its own: annotations go out to
 * it as files, and its results come into QuPath as they are ready.
 *
 * To run it: Automate > User scripts > qprd, where "qprd groovy --install" put it, or
 * Automate > Script editor, open this file; then Run > Run.
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.Gson
import com.google.gson.JsonArray
import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParseException
import com.google.gson.JsonSyntaxException
import groovy.transform.CompileStatic
import groovy.transform.Field
import javafx.animation.PauseTransition
import javafx.application.Platform
import javafx.beans.property.ReadOnlyObjectWrapper
import javafx.beans.value.ChangeListener
import javafx.event.EventHandler
import javafx.geometry.Insets
import javafx.scene.Node
import javafx.scene.Scene
import javafx.scene.control.Alert
import javafx.scene.control.Button
import javafx.scene.control.ButtonBar
import javafx.scene.control.ButtonType
import javafx.scene.control.CheckBox
import javafx.scene.control.ComboBox
import javafx.scene.control.Control
import javafx.scene.control.Hyperlink
import javafx.scene.control.Label
import javafx.scene.control.ProgressBar
import javafx.scene.control.ScrollPane
import javafx.scene.control.Slider
import javafx.scene.control.Tab
import javafx.scene.control.TabPane
import javafx.scene.control.TableColumn
import javafx.scene.control.TableView
import javafx.scene.control.TextArea
import javafx.scene.control.TextField
import javafx.scene.control.TextInputControl
import javafx.scene.control.TitledPane
import javafx.scene.control.ToggleButton
import javafx.scene.input.KeyCode
import javafx.scene.input.KeyEvent
import javafx.scene.layout.GridPane
import javafx.scene.layout.HBox
import javafx.scene.layout.Priority
import javafx.scene.layout.Region
import javafx.scene.layout.VBox
import javafx.stage.FileChooser
import javafx.stage.Stage
import javafx.stage.Window
import javafx.stage.WindowEvent
import javafx.util.Duration
import org.locationtech.jts.algorithm.locate.IndexedPointInAreaLocator
import org.locationtech.jts.geom.Coordinate
import org.locationtech.jts.geom.Envelope
import org.locationtech.jts.geom.Geometry
import org.locationtech.jts.geom.GeometryFactory
import org.locationtech.jts.geom.LinearRing
import org.locationtech.jts.geom.Location
import org.locationtech.jts.geom.Polygon
import org.locationtech.jts.geom.PrecisionModel
import org.locationtech.jts.geom.prep.PreparedGeometryFactory
import org.locationtech.jts.operation.polygonize.Polygonizer
import org.locationtech.jts.operation.union.UnaryUnionOp
import org.locationtech.jts.precision.GeometryPrecisionReducer
import org.locationtech.jts.simplify.TopologyPreservingSimplifier
import org.slf4j.LoggerFactory
import qupath.lib.color.ColorMaps
import qupath.lib.gui.prefs.PathPrefs
import qupath.lib.gui.tools.GuiTools
import qupath.lib.gui.viewer.ImageInterpolation
import qupath.lib.gui.viewer.overlays.AbstractOverlay
import qupath.lib.gui.viewer.overlays.BufferedImageOverlay
import qupath.lib.gui.viewer.tools.PathTools
import qupath.lib.images.ImageData
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import javax.imageio.ImageIO
import javax.imageio.plugins.tiff.TIFFDirectory
import javax.xml.parsers.DocumentBuilderFactory
import java.awt.BasicStroke
import java.awt.Color
import java.awt.Graphics2D
import java.nio.ByteBuffer
import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.nio.file.attribute.FileTime
import java.security.MessageDigest
import java.time.OffsetDateTime
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit

// The command of qprd as a list of words, which "qprd groovy --install" puts here; empty searches the PATH.
@Field static final List<String> INSTALLED = []

@Field static final String TITLE = 'qprd'
@Field static final double PIECE_UM = 500d
@Field static final int MOST_PIECES = 20
@Field static final long MOST_PIXELS = 16_000_000L

// What can be chosen in lists, and the value that stands for it; the first is taken where nothing was chosen.
@Field static final Map<String, Map<String, String>> CHOICES = [
    network: ['Small: any computer, no internet': 'efficientnet_lite0', 'Large, as published: wants a GPU': 'wide_resnet50_2'],
    sensitivity: ['Fewest errors': '', 'Find 90 % of the tumor': '0.90', 'Find 95 % of the tumor': '0.95', 'Find 99 % of the tumor': '0.99'],
    device: ['Automatic': 'auto', 'GPU': System.getProperty('os.name').startsWith('Mac') ? 'mps' : 'cuda', 'CPU': 'cpu'],
]

@Field gui = getQuPath()
// Exports, imports and the watch over a run take turns here.
@Field worker = Executors.newSingleThreadScheduledExecutor { task ->
    def thread = new Thread(task, 'qprd')
    thread.setDaemon(true)
    thread
}
@Field chosenCommand = gui == null ? null : PathPrefs.createPersistentPreference('qprd.command', '')
// What is shown, by name; and the settings among it.
@Field Map ui = [:]
@Field Map fields = [:]
// The run that is followed, or was the last: its project and process, how it ended (null while it runs), how far
// its events were read, when files of predictions changed that were brought in, and what of that failed.
@Field Map now = [job: null, project: null, process: null, end: 'done', read: 0L, brought: [:], problems: []]
// What the tab "Look and review" is about: the image, its grid of tiles, and what is to review in it.
@Field Map look = [:]

if (gui == null) {
    println('qprd: this script opens a window in QuPath, and there is none')
    return
}
keepUnchanged(imageOf(gui.getProject(), gui.getImageData(), gui.getViewer()))
Platform.runLater {
    def open = Window.getWindows().find { it instanceof Stage && it.getTitle() == TITLE && it.isShowing() }
    open == null ? openWindow() : open.toFront()
}

// ---------- The window ----------

void openWindow() {
    ui.tabs = new TabPane(new Tab('Project', projectPane()), new Tab('Train and predict', runPane()),
            new Tab('Look and review', lookPane()))
    ui.tabs.setTabClosingPolicy(TabPane.TabClosingPolicy.UNAVAILABLE)
    VBox.setVgrow(ui.tabs, Priority.ALWAYS)
    ui.state = text('Nothing is running.')
    ui.bar = new ProgressBar(0)
    ui.bar.setMaxWidth(Double.MAX_VALUE)
    ui.bar.setMinHeight(18)
    ui.stop = button('Stop') { stop() }
    ui.resume = button('Resume') { resume() }
    ui.undo = button('Take back results') { start('undo') }
    ui.log = new TextArea()
    ui.log.setEditable(false)
    ui.log.setWrapText(true)
    ui.log.setPrefRowCount(9)
    ui.log.setMinHeight(170)
    ui.showLog = new ToggleButton('Log')
    ui.log.visibleProperty().bind(ui.showLog.selectedProperty())
    ui.log.managedProperty().bind(ui.showLog.selectedProperty())
    def box = column(ui.tabs, ui.state, ui.bar, new HBox(6, ui.stop, ui.resume, ui.undo, ui.showLog), ui.log)

    def stage = new Stage()
    ui.stage = stage
    stage.setTitle(TITLE)
    stage.initOwner(gui.getStage())
    stage.setScene(new Scene(box, 470, 680))
    stage.getScene().addEventFilter(KeyEvent.KEY_PRESSED) { onKey(it) }

    // File > Quit comes by here, too; QuPath asks its own questions after this one.
    def closing = { mayClose(it) } as EventHandler
    stage.setOnCloseRequest(closing)
    gui.getStage().addEventFilter(WindowEvent.WINDOW_CLOSE_REQUEST, closing)
    def imageListener = { observed, before, after -> imageChanged() } as ChangeListener
    def projectListener = { observed, before, after -> projectChanged() } as ChangeListener
    gui.imageDataProperty().addListener(imageListener)
    gui.projectProperty().addListener(projectListener)
    stage.setOnHidden {
        gui.getStage().removeEventFilter(WindowEvent.WINDOW_CLOSE_REQUEST, closing)
        gui.imageDataProperty().removeListener(imageListener)
        gui.projectProperty().removeListener(projectListener)
        look.image?.hierarchy?.removeListener(look.listener)
        showOutlines([])
        ui.heatmap.setSelected(false)
        showHeatmap()
        worker.shutdown()
    }
    worker.scheduleWithFixedDelay({ guarded { poll() } }, 300, 300, TimeUnit.MILLISECONDS)
    // Over the right side of QuPath, where less of the image is hidden.
    def owner = gui.getStage()
    stage.setX(owner.getX() + Math.max(0, owner.getWidth() - 490))
    stage.setY(owner.getY() + 80)
    stage.show()
    projectChanged()
}

Button button(String text, Closure action) {
    def made = new Button(text)
    made.setOnAction { action() }
    made
}

Label text(String text = '') {
    def label = new Label(text)
    label.setWrapText(true)
    label.setMinHeight(Region.USE_PREF_SIZE)
    label
}

VBox column(Node... nodes) {
    def box = new VBox(8, nodes)
    box.setPadding(new Insets(10))
    box
}

/** Work that takes a while; what goes wrong is told in the window. */
void inBackground(Closure work) {
    worker.submit({ guarded(work) } as Runnable)
}

void guarded(Closure work) {
    def problem = problemOf(work)
    if (problem != null) {
        Platform.runLater { tell(problem) }
    }
}

/** What went wrong; null if all went well. */
String problemOf(Closure work) {
    try {
        work()
        null
    } catch (Exception error) {
        LoggerFactory.getLogger('qprd').warn(error.getMessage(), error)
        (error.getMessage() ?: error.toString()).replaceFirst('^qprd: ', '')
    }
}

void tell(String said) {
    ui.state.setText(said.size() > 600 ? said.take(600) + ' ...' : said)
    log(said)
}

void log(String line) {
    ui.log.appendText(line + '\n')
}

String ask(String question, String... answers) {
    def buttons = answers.collect { new ButtonType(it, it == 'Cancel' ? ButtonBar.ButtonData.CANCEL_CLOSE : ButtonBar.ButtonData.YES) }
    def dialog = new Alert(Alert.AlertType.CONFIRMATION, question, buttons as ButtonType[])
    dialog.setHeaderText(null)
    dialog.setTitle(TITLE)
    dialog.initOwner(ui.stage.isShowing() ? ui.stage : gui.getStage())
    dialog.showAndWait().map { it.getText() }.orElse('Cancel')
}

/** Ask what becomes of a run when its window or QuPath closes: it can go on by itself. */
void mayClose(WindowEvent event) {
    if (now.end != null || event.isConsumed()) {
        return
    }
    def answer = ask("qprd is still running (${now.job.command}). It can go on while the window is closed; when you open it " +
            'again, it shows how far that is and brings in the results.', 'Go on', 'Stop it', 'Cancel')
    if (answer == 'Stop it') {
        stop()
    } else if (answer == 'Cancel') {
        event.consume()
    }
}

void onKey(KeyEvent event) {
    def action = [(KeyCode.A): { answer(true) }, (KeyCode.R): { answer(false) }, (KeyCode.N): { step(1) }, (KeyCode.B): { step(-1) },
                  (KeyCode.E): { edit() }][event.getCode()]
    def typing = ui.stage.getScene().getFocusOwner() instanceof TextInputControl
    if (action != null && !typing && !event.isShortcutDown() && !event.isAltDown() &&
            ui.tabs.getSelectionModel().getSelectedIndex() == 2) {
        action()
        event.consume()
    }
}

void projectChanged() {
    def project = gui.getProject()
    guarded { showSettings(project) }
    if (project != null && now.end != null) {
        inBackground { attach(project) }
    }
    refresh()
    imageChanged()
}

/** Which buttons can be pressed, and what is said. */
void show() {
    def running = now.end == null
    def project = gui.getProject()
    [ui.train, ui.again, ui.predictAll, ui.evaluate, ui.undo].each { it.setDisable(running || project == null) }
    ui.predictThis.setDisable(running || project == null || gui.getImageData() == null)
    ui.stop.setDisable(!running || now.job.stopAsked)
    ui.resume.setDisable(running || project == null || !resumesPrediction() && ui.stopped == null)
    ui.bar.setProgress(running ? now.job.fraction() : 0)
    if (running) {
        ui.state.setText(now.job.status())
    }
}

// ---------- Runs of qprd ----------

Node runPane() {
    def grid = new GridPane()
    grid.setHgap(8)
    grid.setVgap(6)
    def field = { String name, String label, Control control ->
        fields[name] = control
        control.setMaxWidth(Double.MAX_VALUE)
        grid.addRow(grid.getRowCount(), new Label(label), control)
        GridPane.setHgrow(control, Priority.ALWAYS)
    }
    def line = { String prompt -> def made = new TextField(); made.setPromptText(prompt); made }
    def list = { String name -> def made = new ComboBox(); made.getItems().setAll(CHOICES[name].keySet()); made }
    field('tumorClass', 'Class of tumor', line('Tumor'))
    field('normalClass', 'Class of normal tissue', line('Normal'))
    field('network', 'Network', list('network'))
    field('tumor', 'Patches of tumor', line('all, up to 500'))
    field('normal', 'Patches of normal', line('all, up to 5000'))
    field('sensitivity', 'Threshold', list('sensitivity'))
    field('uncertain', 'Regions to review', line('0'))
    field('device', 'Compute on', list('device'))
    ui.train = button('Train') { start('train') }
    ui.predictThis = button('Predict this image') {
        // By its id, as several images may have one name.
        start('predict', ['--image', 'id:' + gui.getProject().getEntry(gui.getImageData()).getID()])
    }
    ui.predictAll = button('Predict all images') { start('predict') }
    ui.evaluate = button('Evaluate') { start('evaluate') }
    ui.command = new Hyperlink('Where qprd is installed')
    ui.command.setOnAction { chooseCommand() }
    def more = new Hyperlink('All other settings')
    more.setOnAction { openSettings() }
    def pages = ['index.html': 'Page of all results', 'evaluation.html': 'Page of the evaluation'].collect { file, label ->
        def link = new Hyperlink(label)
        link.setOnAction { openPage(file) }
        link
    }
    column(new HBox(6, ui.train, ui.predictThis, ui.predictAll, ui.evaluate), grid, new HBox(6, more, ui.command), new HBox(6, *pages))
}

Path folderOf(project) {
    project.getPath().getParent().resolve('qprd').resolve('window')
}

/** What was chosen in the window, by name; blank where nothing was. */
Map<String, String> chosen() {
    fields.collectEntries { name, control ->
        [name, control instanceof ComboBox ? CHOICES[name][control.getValue()] : control.getText().strip()]
    }
}

/** The class that an answer gives: the first of those that were chosen. */
String classOf(String name, String usual) {
    fields[name].getText().split(',')[0].strip() ?: usual
}

/** What was chosen for the last run, and words of its own. */
Map savedSettings(project) {
    def file = folderOf(project).resolve('settings.json')
    Files.isRegularFile(file) ? new Gson().fromJson(Files.readString(file, StandardCharsets.UTF_8), Map) : [:]
}

void showSettings(project) {
    def saved = project == null ? [:] : savedSettings(project)
    fields.each { name, control ->
        if (control instanceof ComboBox) {
            control.setValue(CHOICES[name].find { it.value == saved[name] }?.key ?: CHOICES[name].keySet()[0])
        } else {
            control.setText(saved[name] ?: (name == 'uncertain' ? '10' : ''))
        }
    }
}

void openSettings() {
    def project = gui.getProject()
    if (project == null) {
        return
    }
    guarded {
        def file = project.getPath().resolveSibling('qprd.toml')
        if (!Files.exists(file)) {
            Files.writeString(file, '# Settings that the window does not have; what is chosen in the window wins.\n' +
                    '# Take the # from a line to use it. All there are: https://qprd-developers.github.io/qprd/reference/\n\n' +
                    '[train]\n#recipe = "best"\n\n[predict]\n#slide-score = "max"\n')
        }
        gui.getScriptEditor().showScript(file.toFile())
    }
}

void openPage(String name) {
    def page = gui.getProject()?.getPath()?.resolveSibling('qprd')?.resolve('results')?.resolve(name)
    if (page == null || !Files.isRegularFile(page)) {
        tell("There is no such page yet: ${name == 'index.html' ? 'predict' : 'evaluate'} first.")
    } else {
        tell("The browser opens ${page}")
        GuiTools.browseURI(page.toUri())
    }
}

void chooseCommand() {
    def used = command()
    def chooser = new FileChooser()
    chooser.setTitle('Choose the program "qprd"' + (used == null ? '' : "; now it is ${used[0]}"))
    if (used != null) {
        chooser.setInitialDirectory(new File(used[0]).getParentFile())
    }
    def file = chooser.showOpenDialog(ui.stage)
    if (file == null) {
        return
    }
    inBackground {
        def version = CommandLine.versionOf([file.getPath()])
        if (version == null) {
            throw new IllegalStateException("${file} is not the program qprd; what was used before is kept.")
        }
        Platform.runLater {
            chosenCommand.set(file.getPath())
            tell("${version} is used from now on: ${file}")
            refresh()
        }
    }
}

List<String> command() {
    CommandLine.find(chosenCommand.get(), INSTALLED, System.getenv('PATH'), System.getProperty('os.name').startsWith('Windows'))
}

/** Whether the last run in this project was a prediction that ended early. */
boolean resumesPrediction() {
    now.job?.command == 'predict' && now.job.canResume(now.end) && gui.getProject() == now.project
}

/** Go on with a prediction that ended early, else with the training that was stopped last. */
void resume() {
    resumesPrediction() ? start('predict', now.more) : start('train', ['--resume', ui.stopped])
}

/** Start qprd, once all is saved and what is drawn has gone out. */
void start(String name, List<String> more = []) {
    def project = gui.getProject()
    def words = command()
    if (now.end == null) {
        return
    }
    if (words == null) {
        tell('qprd was not found on this computer. Install it, or choose where it is.')
        chooseCommand()
        return
    }
    def unsaved = gui.getAllViewers().findAll { it.getImageData()?.isChanged() && project.getEntry(it.getImageData()) != null }
    if (unsaved) {
        def names = unsaved.collect { project.getEntry(it.getImageData()).getOriginalImageName() }.join(', ')
        if (ask("There are unsaved changes in ${names}. qprd starts when they are saved.", 'Save and start', 'Cancel') == 'Cancel') {
            return
        }
        unsaved.each { project.getEntry(it.getImageData()).saveImageData(it.getImageData()) }
        project.syncChanges()
    }
    def choices = chosen()
    now = [job: new Run(command: name), more: more, project: project, process: null, end: null, read: 0L, brought: [:], problems: []]
    ui.log.clear()
    // Else a field gets the focus of the button that is disabled now, and takes the keys of the review.
    ui.tabs.requestFocus()
    show()
    inBackground {
        try {
            now.problems.addAll(exportAll(project))
            def folder = folderOf(project)
            Files.createDirectories(folder)
            def builder = CommandLine.process(CommandLine.of(words, name, project.getPath(), choices, more))
            // Files, not pipes: qprd can outlive QuPath.
            builder.redirectOutput(folder.resolve('events.jsonl').toFile())
            builder.redirectError(folder.resolve('errors.txt').toFile())
            now.brought = predictionTimes(project)
            if (now.job.stopAsked) {
                throw new IllegalStateException('Stopped before it began.')
            }
            def process = builder.start()
            now.orders = process.getOutputStream()
            now.process = process.toHandle()
            def saved = choices + [more: more, process: process.pid(), began: beganAt(now.process)]
            Files.writeString(folder.resolve('settings.json'), new Gson().toJson(saved))
        } catch (Exception error) {
            now.end = 'failed'
            Platform.runLater { show() }
            throw error
        }
    }
}

/** By its number and its time a process is known: others get the number later, or on another computer. */
String beganAt(ProcessHandle process) {
    process.info().startInstant().map { it.toString() }.orElse('')
}

/** Follow a run that goes on from before this window was opened, or say how the last one ended. */
void attach(project) {
    def events = folderOf(project).resolve('events.jsonl')
    if (!Files.isRegularFile(events)) {
        return
    }
    def saved = savedSettings(project)
    def found = [job: new Run(), more: saved.more ?: [], project: project, process: null, end: null, read: 0L, brought: [:], problems: []]
    readEvents(found)
    def process = ProcessHandle.of((saved.process ?: 0) as long).orElse(null)
    if (process != null && beganAt(process) == saved.began) {
        def began = found.job.began?.toInstant()?.toEpochMilli() ?: 0L
        found.process = process
        found.brought = predictionTimes(project).findAll { it.value < began }
    } else {
        found.end = found.job.end(false)
    }
    Platform.runLater {
        // Meanwhile a run may have begun, or another project may be open.
        if (now.end == null || gui.getProject() != project) {
            return
        }
        now = found
        show()
        if (now.job.canResume(now.end)) {
            tell(now.job.sentence(now.end))
        }
    }
}

void readEvents(Map from) {
    def file = folderOf(from.project).resolve('events.jsonl').toFile()
    if (file.length() <= from.read) {
        return
    }
    file.withInputStream { stream ->
        stream.skipNBytes(from.read)
        def bytes = stream.readAllBytes()
        def whole = bytes.findLastIndexOf { it == 10 as byte } + 1
        new String(bytes, 0, whole, StandardCharsets.UTF_8).split('\n').findAll().each { from.job.accept(it) }
        from.read += whole
    }
}

/** Look what has happened, several times a second. */
void poll() {
    if (now.end != null || now.process == null) {
        return
    }
    // First whether it lives, then what it wrote: so nothing is missed.
    def alive = now.process.isAlive()
    def (said, written) = [now.job.log.size(), now.job.written.size()]
    readEvents(now)
    def lines = now.job.log.drop(said)
    def end = now.job.end(alive)
    if (now.job.written.size() > written || end != null && now.job.command in ['predict', 'undo']) {
        bringIn(now.project)
    }
    if (end != null && end != 'done') {
        def errors = folderOf(now.project).resolve('errors.txt')
        lines += Files.isRegularFile(errors) ? errors.toFile().readLines('UTF-8').takeRight(30) : []
    }
    now.end = end
    Platform.runLater {
        lines.each { log(it) }
        show()
        if (end != null) {
            tell(([now.job.sentence(end)] + now.problems).join('\n'))
            refresh()
        }
    }
}

/** Let qprd end in good order: as it is told to, or by a signal where it does not listen to this window. */
void stop() {
    now.job.stopAsked = true
    try {
        now.orders.write('stop\n'.getBytes('UTF-8'))
        now.orders.flush()
    } catch (Exception ignored) {
        // The program itself, where another one started it for us.
        now.process?.descendants()?.filter { it.pid() == now.job.process }?.findFirst()?.orElse(now.process)?.destroy()
    }
    show()
}

// ---------- Images go out and results come in ----------

/** Call with the image of an entry: the one that is open, else as it was saved. */
void withImage(project, entry, Closure action) {
    def viewer = gui.getAllViewers().find { it.getImageData() != null && project.getEntry(it.getImageData()) == entry }
    def data = viewer == null ? entry.readImageData() : viewer.getImageData()
    try {
        action(imageOf(project, data, viewer))
    } finally {
        if (viewer == null) {
            data.getServer().close()
        }
    }
}

boolean isOpen(project, entry) {
    gui.getAllViewers().any { it.getImageData() != null && project.getEntry(it.getImageData()) == entry }
}

/**
 * Write the annotations of images that are open, or were saved after they were last written; what went wrong. Who
 * closes an image may discard its changes: a file that has some not yet saved gets the time of the data as saved, 0
 * without any, and is written again when the image is closed. It is a millisecond later, as qprd warns of older files.
 */
List<String> exportAll(project) {
    project.getImageList().findResults { entry ->
        def data = entry.getEntryPath().resolve('data.qpdata')
        def file = project.getPath().resolveSibling('qprd').resolve('annotations').resolve(entry.getID() + '.geojson')
        def saved = Files.isRegularFile(data) ? Files.getLastModifiedTime(data).toMillis() + 1 : 0L
        def written = Files.isRegularFile(file) ? Files.getLastModifiedTime(file).toMillis() : null
        def outdated = written == null ? saved > 0 : written <= saved
        // One image that cannot be read stops no other.
        outdated || isOpen(project, entry) ? problemOf {
            withImage(project, entry) { image ->
                exportAnnotations(image)
                if (image.viewer != null && image.data.isChanged()) {
                    Files.setLastModifiedTime(file, FileTime.fromMillis(saved))
                }
            }
        } : null
    }
}

/** When files of predictions changed, by entry. */
Map<String, Long> predictionTimes(project) {
    def folder = project.getPath().resolveSibling('qprd').resolve('predictions').toFile()
    (folder.listFiles() ?: []).findAll { it.getName() ==~ /[^.].*\.geojson/ }
            .collectEntries { [it.getName() - '.geojson', it.lastModified()] }
}

/** Bring in what has changed since the run began. */
void bringIn(project) {
    if (gui.getProject() != project) {
        return
    }
    def times = predictionTimes(project)
    (times.keySet() + now.brought.keySet()).findAll { times[it] != now.brought[it] }.each { id ->
        def entry = project.getImageList().find { it.getID() == id }
        if (entry != null && !worker.isShutdown()) {
            def problem = problemOf { bringIn(project, entry, times.containsKey(id)) }
            now.problems.addAll(problem == null ? [] : [problem])
        }
    }
    now.brought = times
}

void bringIn(project, entry, boolean isThere) {
    def open = isOpen(project, entry)
    withImage(project, entry) { image ->
        image.saves = true
        if (isThere) {
            def said = importPredictions(image)
            Platform.runLater { log(said - 'qprd: ') }
        } else {
            refuseLostObjects(image, 'nothing was removed')
            removeOwn(image, image.hierarchy.getAllObjects(false).findAll { isOwn(it) })
            saveImage(image, [:]) { it.startsWith(OWN_PREFIX) }
        }
    }
    if (!open && isOpen(project, entry)) {
        // It was opened meanwhile, perhaps as it was before.
        bringIn(project, entry, isThere)
        return
    }
    Platform.runLater {
        gui.refreshProject()
        if (open) {
            imageChanged()
        }
    }
}

// ---------- Project ----------

Node projectPane() {
    ui.images = new TableView()
    [Image: 'image', Tumor: 'tumor', Normal: 'normal', Role: 'split', Score: 'score'].each { title, key ->
        def column = new TableColumn(title)
        column.setCellValueFactory { new ReadOnlyObjectWrapper(it.getValue()[key]) }
        column.setPrefWidth(key == 'image' ? 145 : key in ['split', 'score'] ? 75 : 60)
        ui.images.getColumns().add(column)
    }
    ui.images.setPlaceholder(new Label())
    ui.images.setOnMouseClicked {
        def row = ui.images.getSelectionModel().getSelectedItem()
        if (it.getClickCount() == 2 && row != null) {
            openImage(row.entry)
        }
    }
    VBox.setVgrow(ui.images, Priority.ALWAYS)
    ui.next = text()
    ui.warnings = new VBox(4)
    def scroll = new ScrollPane(ui.warnings)
    scroll.setFitToWidth(true)
    scroll.setPrefHeight(160)
    column(ui.images, ui.next, scroll, button('Look again') { refresh() })
}

void openImage(String id) {
    def entry = gui.getProject()?.getImageList()?.find { it.getID() == id }
    if (entry != null) {
        gui.openImageEntry(entry)
    }
}

/** Ask qprd what there is in the project: first what is drawn and predicted, then what is doubtful. */
void refresh() {
    show()
    def (project, words, choices) = [gui.getProject(), command(), chosen()]
    ui.images.getItems().clear()
    ui.warnings.getChildren().clear()
    ui.stopped = null
    ui.next.setText(project == null ? 'Open a project.' : words == null ? 'qprd was not found: choose where it is.' : 'Looking at the project ...')
    if (project == null || words == null) {
        return
    }
    // Answers that come after the next question are of no use.
    def asked = new Object()
    ui.asked = asked
    def answered = { Closure showing -> Platform.runLater { ui.asked.is(asked) && gui.getProject() == project ? showing() : null } }
    inBackground {
        def notSent = exportAll(project).collect { [subject: 'annotations', finding: it] }
        Thread.startDaemon('qprd status') {
            guarded {
                def status = answerOf(words, 'status', project, choices, ['--drawn'])
                answered { showStatus(project, status) }
                def checks = answerOf(words, 'doctor', project, choices).result.checks ?: []
                answered { showWarnings(project, notSent + Findings.warnings(checks)) }
            }
        }
    }
}

/** What a command says that is soon done. */
Run answerOf(List<String> words, String name, project, Map<String, String> choices, List<String> more = []) {
    def builder = CommandLine.process(CommandLine.of(words, name, project.getPath(), choices, more))
    def job = new Run(command: name)
    builder.redirectError(ProcessBuilder.Redirect.DISCARD).start().getInputStream().eachLine('UTF-8') { job.accept(it) }
    job
}

void showStatus(project, Run job) {
    if (job.error != null) {
        ui.next.setText(job.error)
        return
    }
    def entries = project.getImageList().collectEntries { [it.getID(), it] }
    def images = job.result.results ?: []
    ui.images.getItems().setAll(images.collect {
        // What is in QuPath: results that were taken back are kept as files.
        def (probability, score) = [OWN_SLIDE_PROBABILITY, OWN_SLIDE_SCORE].collect { name -> entries[it.entry_id]?.getMetadataValue(name) }
        [entry: it.entry_id, image: it.image, tumor: it.tumor as Integer, normal: it.normal as Integer,
         split: [train: 'training', val: 'validation'][it.split] ?: it.split,
         score: probability != null ? sprintf('%.3f', probability as double) : score == null ? null : sprintf('%.2f raw', score as double)]
    })
    ui.next.setText(Findings.nextTraining(images, job.result.bundles?.find { it.is_newest }?.name))
    ui.stopped = job.result.runs?.find { !it.is_running }?.name
    def waiting = images.findAll { it.written == 'waiting' }*.entry_id
    show()
    if (waiting && now.end != null && !worker.isShutdown()) {
        offer(project, waiting)
    }
}

/** Ask whether to bring in results that are not in QuPath: some may have been removed there. */
void offer(project, List<String> waiting) {
    // A no holds for as long as the window is open; until there is an answer, nobody is asked again.
    ui.refused = ui.refused ?: [] as Set
    if (!ui.refused.add(project.getPath())) {
        return
    }
    if (ask("Results of ${counted(waiting.size(), 'image')} are not in QuPath yet.", 'Bring in', 'Cancel') == 'Cancel') {
        return
    }
    ui.refused.remove(project.getPath())
    inBackground {
        waiting.each { id ->
            if (!worker.isShutdown()) {
                guarded { bringIn(project, project.getImageList().find { it.getID() == id }, true) }
            }
        }
    }
}

/** Each warning with links to the images that it is about. */
void showWarnings(project, List<Map> warnings) {
    // Several images may have one name.
    def entries = project.getImageList().groupBy { it.getOriginalImageName() }
    ui.warnings.getChildren().setAll(warnings.collectMany { check ->
        def links = (check.images ?: []).unique(false).collectMany { entries[it] ?: [] }.take(10).collect { entry ->
            def link = new Hyperlink(entry.getOriginalImageName())
            link.setOnAction { openImage(entry.getID()) }
            link
        }
        def about = links ? '' : "${check.subject.capitalize()}: "
        links + [text(about + check.finding + (check.fix ? "\n${check.fix}" : ''))]
    } ?: [text('Nothing is doubtful.')])
}

// ---------- Look and review ----------

Node lookPane() {
    ui.heatmap = new CheckBox('Heatmap')
    ui.heatmap.setOnAction { showHeatmap() }
    ui.opacity = new Slider(0, 1, 0.6)
    ui.opacity.valueProperty().addListener({ o, a, b -> setOpacity() } as ChangeListener)
    ui.threshold = new Slider(0, 1, 0.5)
    ui.threshold.setShowTickLabels(true)
    ui.thresholdText = text()
    ui.keep = button('Keep') { keep() }
    ui.revert = button('Back') { showThreshold() }
    def pause = new PauseTransition(Duration.millis(150))
    pause.setOnFinished { outline() }
    ui.threshold.valueProperty().addListener({ o, a, b ->
        if (!look.quiet) {
            pause.playFromStart()
        }
    } as ChangeListener)
    [ui.opacity, ui.threshold].each { HBox.setHgrow(it, Priority.ALWAYS) }
    ui.reviewText = text()
    ui.judge = [button('Accept (A)') { answer(true) }, button('Reject (R)') { answer(false) }, button('Edit (E)') { edit() },
                button('Back (B)') { step(-1) }, button('Next (N)') { step(1) }]
    ui.nextImage = button('Next image') { openImage(look.nextImage) }
    ui.again = button('Train again') { start('train') }
    column(new HBox(8, ui.heatmap, new Label('Opacity'), ui.opacity),
            new TitledPane('Threshold', column(ui.threshold, ui.thresholdText, new HBox(6, ui.keep, ui.revert))),
            new TitledPane('Review', column(ui.reviewText, new HBox(6, *ui.judge), new HBox(6, ui.nextImage, ui.again))))
}

Map shownImage() {
    def project = gui.getProject()
    def image = imageOf(project, gui.getImageData(), gui.getViewer())
    image.entry == null ? null : image
}

/** Another image is open, or it has other results. */
void imageChanged() {
    showOutlines([])
    look.image?.hierarchy?.removeListener(look.listener)
    def image = shownImage()
    look = [image: image, grid: null, items: [], at: -1, told: [:], accepted: [:], quiet: true]
    // What is judged or undone in QuPath itself counts, too.
    look.listener = { if (!it.isChanging()) { Platform.runLater { showItem() } } } as PathObjectHierarchyListener
    image?.hierarchy?.addListener(look.listener)
    show()
    showThreshold()
    showItem()
    showHeatmap()
    if (image != null) {
        def accepted = classOf('tumorClass', 'Tumor')
        inBackground {
            def found = [known: true]
            try {
                found += reviewOf(image, accepted, PIECE_UM, MOST_PIECES).subMap(['items', 'told', 'accepted'])
                found += [nextImage: nextToReview(image)]
                found += [grid: gridOf(image)]
            } finally {
                Platform.runLater {
                    if (look.image.is(image)) {
                        look.putAll(found)
                        showThreshold()
                        showItem()
                    }
                }
            }
        }
    }
}

/** What is said before an image was looked at. */
String unknown() {
    look.image == null ? 'Open an image of the project.' : 'Looking at the image ...'
}

void showHeatmap() {
    def (viewer, image) = [gui.getViewer(), look.image]
    if (ui.opacityBefore != null) {
        // Another viewer may be the active one by now.
        ui.heatmapViewer.resetCustomPixelLayerOverlay()
        ui.heatmapViewer.getOverlayOptions().setOpacity(ui.opacityBefore)
        ui.opacityBefore = null
    }
    if (!ui.heatmap.isSelected() || image == null) {
        return
    }
    inBackground {
        def map = scoreMapOf(image, MOST_PIXELS)
        def range = map == null || map.calibrated ? [0d, 1d] : [map.low, map.high]
        def overlay = map == null ? null : overlayOf(viewer, map, range, Double.NEGATIVE_INFINITY, 'Magma')
        Platform.runLater {
            if (overlay == null) {
                tell('There is no heatmap of this image yet: predict it first.')
            } else if (look.image.is(image) && ui.heatmap.isSelected() && ui.opacityBefore == null) {
                ui.heatmapViewer = viewer
                ui.opacityBefore = viewer.getOverlayOptions().getOpacity()
                viewer.getOverlayOptions().setShowPixelClassification(true)
                setOpacity()
                viewer.setCustomPixelLayerOverlay(overlay)
            }
        }
    }
}

void setOpacity() {
    if (ui.opacityBefore != null) {
        ui.heatmapViewer.getOverlayOptions().setOpacity(ui.opacity.getValue() as float)
    }
}

/** Show the threshold of the contours that are in the image. */
void showThreshold() {
    def grid = look.grid
    [ui.threshold, ui.keep, ui.revert].each { it.setDisable(grid == null) }
    showOutlines([])
    look.quiet = true
    if (grid == null) {
        ui.thresholdText.setText(look.known ? 'There is no prediction of this image.' : unknown())
    } else {
        def values = (grid.calibrated ? grid.probabilities : grid.scores).findAll { !Double.isNaN(it) }
        ui.threshold.setMin(grid.calibrated ? 0 : values.min())
        ui.threshold.setMax(grid.calibrated ? 1 : values.max())
        ui.threshold.setMajorTickUnit((ui.threshold.getMax() - ui.threshold.getMin()) / 4)
        def raw = look.image.entry.getMetadataValue(OWN_THRESHOLD)?.toDouble() ?: Double.NaN
        def above = (0..<grid.scores.length).findAll { grid.scores[it] >= raw && !Double.isNaN(grid.scores[it]) }
        def at = !grid.calibrated ? raw : look.image.entry.getMetadataValue(OWN_PROBABILITY_THRESHOLD)?.toDouble() ?:
                above ? above.collect { grid.probabilities[it] }.min() : 1d
        ui.threshold.setValue(Double.isNaN(at) ? values.max() : at)
        ui.thresholdText.setText("The contours are drawn at ${shown(ui.threshold.getValue())}. Move the slider to see others.")
    }
    look.quiet = false
}

String shown(double value) {
    (look.grid.calibrated ? 'a probability of ' : 'a score of ') + String.format(Locale.ROOT, '%.2f', value)
}

/** Draw the outlines at the threshold of the slider over the image, which stays as it is. */
void outline() {
    def (image, grid, threshold) = [look.image, look.grid, ui.threshold.getValue()]
    if (grid == null) {
        return
    }
    inBackground {
        def polygons = outlinesAt(image, grid, threshold)
        def plane = grid.tiles[0].getROI().getImagePlane()
        def shapes = polygons.collect { GeometryTools.geometryToROI(it, plane).getShape() }
        Platform.runLater {
            if (look.image.is(image) && ui.threshold.getValue() == threshold) {
                showOutlines(shapes)
                ui.thresholdText.setText("${counted(shapes.size(), 'contour')} at ${shown(threshold)}, in yellow. Keep draws them instead of those that are there.")
            }
        }
    }
}

void showOutlines(List shapes) {
    def viewer = look.viewer ?: gui.getViewer()
    if (look.layer != null) {
        viewer.getCustomOverlayLayers().remove(look.layer)
        look.layer = null
    }
    if (shapes) {
        look.viewer = gui.getViewer()
        look.layer = new Outlines(look.viewer.getOverlayOptions(), look.image.data, shapes)
        look.viewer.getCustomOverlayLayers().add(look.layer)
    }
    viewer.repaint()
}

void keep() {
    def (image, grid, threshold) = [look.image, look.grid, ui.threshold.getValue()]
    // Until then there is nothing to review.
    look.putAll([grid: null, items: []])
    ui.thresholdText.setText('Drawing ...')
    ui.keep.setDisable(true)
    inBackground {
        def said = drawContours(image, grid, threshold)
        Platform.runLater {
            log(said - 'qprd: ')
            imageChanged()
        }
    }
    showItem()
}

// ---------- Review ----------

void showItem() {
    def items = look.items
    def left = items ? unanswered(look.image, items) : 0
    ui.judge[0..2].each { it.setDisable(!(look.at in 0..<items.size())) }
    ui.judge[3].setDisable(look.at <= 0)
    ui.judge[4].setDisable(items.isEmpty() || look.at >= items.size())
    ui.nextImage.setVisible(look.nextImage != null)
    if (items.isEmpty()) {
        ui.reviewText.setText(look.known ? 'Nothing is to review in this image.' : unknown())
    } else if (look.at < 0) {
        def role = ui.images.getItems().find { it.entry == look.image.entry.getID() }?.split
        ui.reviewText.setText("${counted(items.size(), 'region')} to look at in this image. Press Next." +
                (role in ['validation', 'test'] ? " The training does not learn from it, as it is for ${role}." : ''))
    } else if (look.at >= items.size()) {
        ui.reviewText.setText("All ${items.size()} seen, ${left} without an answer. The next training learns from your answers.")
    } else {
        def object = annotationOf(look.image, items[look.at])
        def classes = !isOwnClass(object.getPathClass()) ? "Its class is ${object.getPathClass()} now."
                : "Accept gives it the class ${look.accepted[object.getID()]}, Reject ${classOf('normalClass', 'Normal')}."
        ui.reviewText.setText("${look.at + 1} of ${items.size()}, ${left} without an answer\n${look.told[object.getID()]}\n${classes}")
    }
}

void step(int by) {
    if (look.items.isEmpty()) {
        return
    }
    look.at = Math.max(0, Math.min(look.items.size(), look.at + by))
    showItem()
    if (look.at < look.items.size()) {
        def object = annotationOf(look.image, look.items[look.at])
        center(object.getROI())
        gui.getViewer().setSelectedObject(object)
    }
}

/** Show a region where this window does not cover the image, which is to its left. */
void center(roi) {
    def viewer = gui.getViewer()
    def view = viewer.getView()
    def seen = view.localToScreen(view.getBoundsInLocal())
    def free = ui.stage.getX() - seen.getMinX()
    def width = free > 300 && free < seen.getWidth() ? free : seen.getWidth()
    def needed = Math.max(roi.getBoundsWidth() / width, roi.getBoundsHeight() / seen.getHeight())
    viewer.setDownsampleFactor(Math.max(3 * needed, 1d))
    viewer.setCenterPixelLocation(roi.getCentroidX() + (seen.getWidth() - width) / 2 * viewer.getDownsampleFactor(), roi.getCentroidY())
}

void answer(boolean isTumor) {
    if (look.at in 0..<look.items.size()) {
        def item = look.items[look.at]
        judge(look.image, item, isTumor ? look.accepted[item.getID()] : classOf('normalClass', 'Normal'), this)
        gui.getToolManager().setSelectedTool(PathTools.MOVE)
        step(1)
    }
}

/** Let QuPath's brush change the outline that is asked about. */
void edit() {
    if (look.at in 0..<look.items.size()) {
        gui.getViewer().setSelectedObject(addedOf(look.image, look.items[look.at]))
        gui.getToolManager().setSelectedTool(PathTools.BRUSH)
        gui.getStage().toFront()
        ui.reviewText.setText(ui.reviewText.getText() + '\nPush its outline with the brush, from the inside, or with Alt from the outside; then accept or reject it here.')
    }
}

/** The next image that has regions to review and was not open yet in this window. */
String nextToReview(Map image) {
    def results = image.folder.resolve('results')
    ui.seen = (ui.seen ?: [] as Set) + image.entry.getID()
    image.project.getImageList()*.getID().find { !ui.seen.contains(it) && Files.isRegularFile(results.resolve(it).resolve('review.geojson')) }
}

/** Outlines over the image, as they would be drawn. */
class Outlines extends AbstractOverlay {
    private final ImageData data
    private final List shapes

    Outlines(options, ImageData data, List shapes) {
        super(options)
        this.data = data
        this.shapes = shapes
    }

    void paintOverlay(Graphics2D graphics, ImageRegion region, double downsample, ImageData shown, boolean paintCompletely) {
        if (shown == data) {
            graphics.setColor(Color.YELLOW)
            graphics.setStroke(new BasicStroke((float) (3 * downsample)))
            shapes.each { graphics.draw(it) }
        }
    }
}

// ---- part run: generated from parts/run.groovy, do not edit here ----
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
// ---- end of part run ----

// ---- part names: generated from parts/names.groovy, do not edit here ----
@Field static final String OWN = 'qprd'
@Field static final String REVIEW = 'Review'
@Field static final String OLD_TILE = 'qprd tile'
@Field static final String FAULT = 'qprd: fault'
@Field static final String OWN_PREFIX = 'qprd: '
@Field static final String OWN_SCORE = 'qprd: score'
@Field static final String OWN_PROBABILITY = 'qprd: probability'
@Field static final String OWN_MEAN_SCORE = 'qprd: mean score'
@Field static final String OWN_MAX_SCORE = 'qprd: max score'
@Field static final String OWN_MEAN_PROBABILITY = 'qprd: mean probability'
@Field static final String OWN_AREA = 'qprd: area um^2'
@Field static final String OWN_NUMBER = 'qprd: number'
@Field static final String OWN_RANK = 'qprd: review rank'
@Field static final String OWN_SLIDE_SCORE = 'qprd: slide score'
@Field static final String OWN_SLIDE_PROBABILITY = 'qprd: slide probability'
@Field static final String OWN_BUNDLE = 'qprd: bundle'
@Field static final String OWN_THRESHOLD = 'qprd: threshold'
@Field static final String OWN_PROBABILITY_THRESHOLD = 'qprd: probability threshold'
@Field static final String OWN_THRESHOLD_SET_IN = 'qprd: threshold set in'
@Field static final String CONTOUR_CLASS = 'Tumor: qprd'
@Field static final List CONTOUR_COLOR = [255, 140, 0]
@Field static final int TILE_COLOR = 0x01ffffff
@Field static final long OWN_ID = 0x71707264L
// ---- end of part names ----

// ---- part image: generated from parts/image.groovy, do not edit here ----
/**
 * An image with its place in a project. The entry is null outside of a project, and the viewer is null unless it
 * shows the image. What is shown is saved when a script changes it.
 */
Map imageOf(project, data, viewer) {
    def entry = project == null || data == null ? null : project.getEntry(data)
    def inView = data != null && viewer?.getImageData() == data
    [project: project, entry: entry, data: data, hierarchy: data?.getHierarchy(), viewer: inView ? viewer : null,
     saves: inView, folder: project?.getPath()?.getParent()?.resolve('qprd'),
     name: entry?.getOriginalImageName() ?: data?.getServer()?.getMetadata()?.getName()]
}

/** Let QuPath not ask whether to save an image that was only looked at: it takes the end of any script for a change. */
void keepUnchanged(Map image) {
    def data = image.data
    if (image.viewer == null || data.isChanged()) {
        return
    }
    image.hierarchy.addListener(new PathObjectHierarchyListener() {
        boolean ended = false
        void hierarchyChanged(PathObjectHierarchyEvent event) {
            if (!ended && event.getSource() instanceof ScriptParameters) {
                data.setChanged(false)
            }
            ended = true
        }
    })
}

/** What an image had when it was saved, as QuPath counts it; null if it never was. */
JsonObject savedHierarchy(Map image) {
    def file = image.entry?.getEntryPath()?.resolve('summary.json')
    if (file == null || !Files.isRegularFile(file)) {
        return null
    }
    def summary = GsonTools.getInstance().fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class)
    summary?.getAsJsonObject('hierarchy')
}

/**
 * Refuse an image that has lost its objects: QuPath shows one whose data file it cannot read without any, and
 * saving it replaces that file.
 */
void refuseLostObjects(Map image, String outcome, Closure<String> beforehand = { '' }) {
    // The root object counts as one.
    def saved = image.hierarchy.isEmpty() ? savedHierarchy(image)?.get('nObjects') : null
    if (saved != null && saved.getAsLong() > 1) {
        throw new IllegalStateException("qprd: ${image.name} had objects when it was saved, and has none now: ${outcome}. " +
                "Its data file may be damaged${beforehand()}. " +
                'If you deleted them, save the image and run this again.')
    }
}

String counted(int count, String noun) {
    "${count} ${noun}${count == 1 ? '' : 's'}"
}
// ---- end of part image ----

// ---- part objects: generated from parts/objects.groovy, do not edit here ----
List<String> partsOf(pathClass) {
    pathClass == null ? [] : pathClass.toString().split(':').collect { it.strip() }
}

boolean isOwnClass(pathClass) {
    partsOf(pathClass).contains(OWN)
}

boolean isReviewClass(pathClass) {
    partsOf(pathClass) == [REVIEW, OWN]
}

boolean isOwnTile(object) {
    object.isTile() && object.getName() in [null, OLD_TILE] && object.getMeasurements().containsKey(OWN_SCORE)
}

boolean isOwnAnnotation(object) {
    object.isAnnotation() && isOwnClass(object.getPathClass()) && object.getMeasurements().containsKey(OWN_MEAN_SCORE)
}

boolean isOwnContour(object) {
    isOwnAnnotation(object) && !partsOf(object.getPathClass()).contains(REVIEW)
}

boolean isOwn(object) {
    isOwnTile(object) || isOwnAnnotation(object)
}

List ownTiles(Map image) {
    image.hierarchy.getTileObjects().findAll { isOwnTile(it) } as List
}

/** The measurement that tiles are shown by: their probability, or the raw score where one has none. */
String tileMeasurement(List tiles) {
    tiles.every { it.getMeasurements().containsKey(OWN_PROBABILITY) } ? OWN_PROBABILITY : OWN_SCORE
}

/** A random id of ours, as qprd/predictions.py makes them. */
UUID ownId() {
    def random = UUID.randomUUID()
    new UUID((OWN_ID << 32) | (random.getMostSignificantBits() & 0xffffffffL), random.getLeastSignificantBits())
}

/** Take objects of ours out. Users may have nested objects of theirs below them: these move up first. */
void removeOwn(Map image, Collection objects) {
    def own = objects as LinkedHashSet
    own.each { object ->
        def others = object.getChildObjects().findAll { !own.contains(it) }
        if (others) {
            def parent = object.getParent()
            while (own.contains(parent)) {
                parent = parent.getParent()
            }
            parent.addChildObjects(others)
        }
    }
    image.hierarchy.removeObjects(own, false)
}
// ---- end of part objects ----

// ---- part records: generated from parts/records.groovy, do not edit here ----
/**
 * Refuse what was written for another image: entries get other ids when a project is made anew, and "qprd"
 * folders can be copied. As in qprd/qupath/image_record.py, but for the fingerprint.
 */
void refuseAnotherImage(Map image, JsonObject record, Path file, String command) {
    def textOf = { key -> record?.get(key)?.getAsString() }
    def fileName = { uri -> uri == null ? null : uri.tokenize('/').last() }
    def another = textOf('entry') != null && textOf('entry') != image.entry.getID()
    try {
        def server = image.data.getServer()
        [width: server.getWidth(), height: server.getHeight()].each { key, size ->
            another |= record?.has(key) && Math.abs(record.get(key).getAsInt() - size) > 1
        }
    } catch (Exception ignored) {
        // The slide is not there.
    }
    if (textOf('image') != null && textOf('image') != image.name) {
        another |= textOf('uri') == null || fileName(textOf('uri')) != fileName(image.entry.getURIs()[0]?.toString())
    }
    if (another) {
        throw new IllegalStateException("qprd: ${file} is of the image ${textOf('image')}, and this image is ${image.name}: " +
                "nothing was changed. Run ${command} for this image.")
    }
}

/** What "qprd predict" saved about this image; null if there is nothing. */
JsonObject resultsOf(Map image) {
    def folder = image.folder.resolve('results').resolve(image.entry.getID())
    def file = folder.resolve('slide.json')
    if (!Files.isRegularFile(file)) {
        return null
    }
    def slide = GsonTools.getInstance().fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class)
    def frame = slide.getAsJsonObject('frame')
    def sides = ['file_width', 'file_height'].collect { frame.get(it).getAsInt() }
    if (frame.get('rotation').getAsInt() % 180 != 0) {
        sides = sides.reverse()
    }
    def server = image.data.getServer()
    // An image may have been renamed since.
    def names = [image.name, image.entry.getURIs()[0]?.toString()?.tokenize('/')?.last()]
    def same = slide.get('entry_id').getAsString() == image.entry.getID() && names.contains(slide.get('image').getAsString()) &&
            [sides, [server.getWidth(), server.getHeight()]].transpose().every { Math.abs(it[0] - it[1]) <= 1 }
    if (!same) {
        throw new IllegalStateException("qprd: ${folder} has results of the image ${slide.get('image').getAsString()}, and " +
                "this image is ${image.name}: nothing was changed. Run qprd predict for this image.")
    }
    slide
}
// ---- end of part records ----

// ---- part saving: generated from parts/saving.groovy, do not edit here ----
/**
 * Save a changed image and the metadata of its entry. QuPath keeps metadata in the project, and objects with the
 * image: both are saved, or neither.
 */
void saveImage(Map image, Map<String, String> metadata, Closure<Boolean> outdated) {
    image.hierarchy.fireHierarchyChangedEvent(this)
    if (image.saves) {
        def entry = image.entry
        // What a user draws meanwhile may not be in the file, and QuPath takes all for saved at the end.
        def drawn = false
        def listener = { drawn = true } as PathObjectHierarchyListener
        image.hierarchy.addListener(listener)
        try {
            entry.saveImageData(image.data)
        } finally {
            image.hierarchy.removeListener(listener)
        }
        if (drawn) {
            image.data.setChanged(true)
        }
        new ArrayList(entry.getMetadataKeys()).findAll(outdated).each { entry.removeMetadataValue(it) }
        metadata.each { key, value -> entry.putMetadataValue(key, value) }
    }
    image.project.syncChanges()
}

/** Add the classes that objects bear to the project's list and to that of the open window, which would replace it. */
void listClasses(project, Collection objects) {
    def known = project.getPathClasses()
    def missing = objects.findResults { it.getPathClass() }.unique().findAll { !known.contains(it) }
    // A project that lists none gets QuPath's default ones, unless it lists ours.
    if (missing && known) {
        project.setPathClasses(known + missing)
    }
    def gui = getQuPath()
    if (missing && gui != null) {
        Platform.runLater {
            def shown = gui.getAvailablePathClasses()
            missing.findAll { !shown.contains(it) }.each { shown.add(it) }
        }
    }
}
// ---- end of part saving ----

// ---- part annotations: generated from parts/annotations.groovy, do not edit here ----
Path annotationFile(Map image) {
    image.folder.resolve('annotations').resolve(image.entry.getID() + '.geojson')
}

/** Write all annotations of an image to its file, and say what was done. Nothing is changed in QuPath. */
String exportAnnotations(Map image) {
    def gson = GsonTools.getInstance()
    def annotations = image.hierarchy.getAnnotationObjects()
    // An empty export of an image that QuPath could not read must not take the place of a good one.
    def saved = !annotations.isEmpty() ? null : savedHierarchy(image)?.getAsJsonObject('objectTypeCounts')?.get('Annotations')
    if (saved != null && saved.getAsLong() > 0) {
        throw new IllegalStateException("qprd: ${image.name} had ${saved} annotations " +
                'when it was saved, and has none now: nothing was exported. ' +
                'If you deleted them, save the image and run this again.')
    }

    // The folder qprd may be a link, to another disk; nothing in it may lead elsewhere.
    def file = annotationFile(image)
    def folder = file.getParent()
    Files.createDirectories(folder)
    if (!folder.toRealPath().startsWith(image.folder.toRealPath())) {
        throw new IllegalStateException("qprd: ${folder} leads out of the project: nothing was exported. Remove the link.")
    }

    // "qprd import-asap" may have added annotations to the file that this is about to replace.
    def imported = importedIds(gson, file)
    def present = annotations.collect { it.getID().toString() } as Set
    if (imported && imported.every { !present.contains(it) }) {
        throw new IllegalStateException("qprd: ${image.name} lacks the ${imported.size()} annotations " +
                'that qprd import-asap added: nothing was exported. Run import_annotations.groovy first; ' +
                "if you do not want them, delete ${file}.")
    }

    def broken = []
    def features = annotations.collect { featureOf(gson, it, broken) }.join(',')
    // As in qprd/qupath/image_record.py, but for the fingerprint: what tells this image from others.
    def record = [entry: image.entry.getID(), image: image.name, uri: image.entry.getURIs()[0]?.toString()]
    try {
        def server = image.data.getServer()
        record += [width: server.getWidth(), height: server.getHeight()]
    } catch (Exception ignored) {
        // The slide is not there.
    }
    def text = '{"type":"FeatureCollection","features":[' + features + "],\"${OWN}\":" + gson.toJson(record) + '}'
    def temporary = folder.resolve('.' + image.entry.getID() + '.geojson.tmp')
    try {
        Files.writeString(temporary, text, StandardCharsets.UTF_8)
        Files.move(temporary, file, StandardCopyOption.REPLACE_EXISTING)
    } finally {
        Files.deleteIfExists(temporary)
    }
    "qprd: ${counted(annotations.size(), 'annotation')} of ${image.name} -> ${file}" + (!broken ? '' :
            "\nqprd: of these, QuPath cannot export ${broken.join(', ')}: they will not be used; draw them again or delete them")
}

/** Ids of what "qprd import-asap" added to a file, which may be missing or damaged. */
List<String> importedIds(Gson gson, Path file) {
    def earlier = null
    try {
        earlier = Files.isRegularFile(file) ? gson.fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonElement.class) : null
    } catch (JsonParseException | IOException ignored) {
        // A damaged file is there to be replaced.
    }
    def member = earlier instanceof JsonObject ? earlier.get(OWN) : null
    def listed = member instanceof JsonObject ? member.get('imported') : null
    listed instanceof JsonArray ? listed.collect { it.getAsString() } : []
}

/**
 * An annotation as GeoJSON. One that QuPath cannot export, such as a polygon of two equal points, must not cost the
 * others: it becomes the points of its outline, and qprd names it.
 */
String featureOf(Gson gson, annotation, List<String> broken) {
    try {
        return gson.toJson(annotation)
    } catch (RuntimeException error) {
        broken << (annotation.getName() ?: annotation.getID().toString())
        def points = annotation.getROI().getAllPoints().findAll {
            Double.isFinite(it.getX()) && Double.isFinite(it.getY())
        }
        def roi = ROIs.createPointsROI(points, annotation.getROI().getImagePlane())
        def standIn = PathObjects.createAnnotationObject(roi, annotation.getPathClass())
        standIn.setID(annotation.getID())
        standIn.setName(annotation.getName())
        def feature = gson.fromJson(gson.toJson(standIn), JsonObject.class)
        feature.getAsJsonObject('properties').addProperty(FAULT, 'QuPath cannot export it: ' + error.getMessage())
        return gson.toJson(feature)
    }
}
// ---- end of part annotations ----

// ---- part predictions: generated from parts/predictions.groovy, do not edit here ----
/** What two regions have in common that are the same. */
List regionOf(object) {
    [object.getID(), object.getROI().getAllPoints() as Set]
}

/** Judgments made outside QuPath by region, as in qprd/qupath/reviews.py: of those about a region the last counts. */
Map judgmentsIn(Path file, Closure check) {
    if (!Files.isRegularFile(file)) {
        return [:]
    }
    def judged = [:]
    Files.readString(file, StandardCharsets.UTF_8).split('\n').findAll { it.strip() }.each { text ->
        def line
        try {
            line = GsonTools.getInstance().fromJson(text, JsonObject.class)
        } catch (JsonSyntaxException ignored) {
            // The rest of a line whose writer was killed.
            return
        }
        check(line.getAsJsonObject('image'))
        def region = GsonTools.parseObjectsFromGeoJSON(line.get('feature'))[0]
        judged[regionOf(region)] = line.get('verdict').getAsString() == 'none' ? null : region
    }
    judged.findAll { it.value != null }
}

/** A copy of the data file of an image, kept for good; says where it is. */
String keepDataFile(Map image) {
    def data = image.entry.getEntryPath().resolve('data.qpdata')
    def copy = image.folder.resolve('backup').resolve(image.entry.getID() + '.qpdata')
    if (Files.isRegularFile(data) && !Files.exists(copy)) {
        Files.createDirectories(copy.getParent())
        Files.copy(data, copy)
    }
    "; a copy is ${copy}"
}

/**
 * Bring predictions and judgments into an image, which is saved if it saves, and say what was done. What an earlier
 * run of qprd put there is replaced; nothing else is touched.
 */
String importPredictions(Map image) {
    def file = image.folder.resolve('predictions').resolve(image.entry.getID() + '.geojson')
    def reviews = image.folder.resolve('reviews').resolve(image.entry.getID() + '.jsonl')
    def hasPredictions = Files.isRegularFile(file)
    if (!hasPredictions && !Files.isRegularFile(reviews)) {
        return "qprd: no predictions for ${image.name} (${file})"
    }
    def command = 'qprd predict --write-back'

    // All is read and checked before anything is changed.
    def gson = GsonTools.getInstance()
    def root = hasPredictions ? gson.fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class) : null
    refuseAnotherImage(image, root?.getAsJsonObject(OWN), file, command)
    def predicted = hasPredictions ? GsonTools.parseObjectsFromGeoJSON(root) : []
    if (!predicted.every { isOwn(it) }) {
        throw new IllegalStateException("qprd: ${file} holds objects that are not qprd's; nothing was changed")
    }
    def metadata = root?.getAsJsonObject(OWN)?.getAsJsonObject('metadata')?.asMap() ?: [:]
    if (!metadata.keySet().every { it.startsWith(OWN_PREFIX) }) {
        throw new IllegalStateException("qprd: ${file} holds metadata that is not qprd's; nothing was changed")
    }
    def judged = judgmentsIn(reviews) { refuseAnotherImage(image, it, reviews, command) }
    refuseLostObjects(image, 'nothing was imported') { keepDataFile(image) }

    def hierarchy = image.hierarchy
    def earlier = hierarchy.getAllObjects(false).findAll {
        isOwn(it) && (hasPredictions || it.isAnnotation() && judged.containsKey(regionOf(it)))
    }
    removeOwn(image, earlier)

    // A region to review that a user judged keeps its id: nobody is asked twice.
    def taken = hierarchy.getAllObjects(false).collect { it.getID() } as Set
    // A class that was given here outweighs a judgment made outside.
    def added = judged.values().findAll { !taken.contains(it.getID()) }
    hierarchy.addObjects(added)
    taken.addAll(added.collect { it.getID() })
    predicted = predicted.findAll { it.isTile() || !judged.containsKey(regionOf(it)) }
    predicted = predicted.findAll { !(taken.contains(it.getID()) && it.getMeasurements().containsKey(OWN_RANK)) }
    // A contour that a user accepted keeps its id; the new one at its place needs another.
    predicted.findAll { taken.contains(it.getID()) }.each { it.setID(ownId()) }
    hierarchy.addObjects(predicted)

    if (image.saves) {
        listClasses(image.project, predicted + added)
    }
    saveImage(image, metadata.collectEntries { key, value -> [key, value.getAsString()] }) {
        hasPredictions && it.startsWith(OWN_PREFIX)
    }
    def tiles = predicted.count { it.isTile() }
    def regions = predicted.count { it.isAnnotation() && it.getMeasurements().containsKey(OWN_RANK) }
    def contours = predicted.size() - tiles - regions
    "qprd: ${counted(tiles, 'tile')}${regions ? ", ${counted(regions, 'region')} to review" : ''} and " +
            "${counted(contours, 'contour')} into ${image.name}, ${counted(earlier.size(), 'earlier one')} replaced" +
            (added ? ", ${counted(added.size(), 'judgment')} made in the browser" : '')
}
// ---- end of part predictions ----

// ---- part contours: generated from parts/contours.groovy, do not edit here ----
@Field static final Map<String, Double> CONTOUR_DEFAULTS = [min_area_um2: 5000d, tolerance_um: 4d]

/** The tiles of an image as a grid; null if it has none. */
Grid gridOf(Map image) {
    def tiles = ownTiles(image)
    if (tiles.isEmpty()) {
        return null
    }
    def calibrated = tileMeasurement(tiles) == OWN_PROBABILITY
    def edge = tiles.collect { Math.max(it.getROI().getBoundsWidth(), it.getROI().getBoundsHeight()) }.max()
    def left = tiles.min { it.getROI().getBoundsX() }.getROI().getBoundsX()
    def top = tiles.min { it.getROI().getBoundsY() }.getROI().getBoundsY()
    def columnOf = { tile -> Math.round((tile.getROI().getBoundsX() - left) / edge) as int }
    def rowOf = { tile -> Math.round((tile.getROI().getBoundsY() - top) / edge) as int }
    def last = tiles.max { it.getROI().getBoundsX() }
    def lowest = tiles.max { it.getROI().getBoundsY() }
    def columns = columnOf(last) + 1
    def rows = rowOf(lowest) + 1
    // Positions are rounded to 0.01 px; over the whole grid that does not matter.
    def pitch = columns > 1 ? (last.getROI().getBoundsX() - left) / (columns - 1)
            : rows > 1 ? (lowest.getROI().getBoundsY() - top) / (rows - 1) : edge
    def grid = new Grid(tiles, calibrated, left, top, pitch, rows, columns)
    tiles.each { tile ->
        def roi = tile.getROI()
        // Those at the right and lower edge of the slide end there.
        def whole = { length, isLast -> Math.abs(length - edge) < 0.02 || isLast && length < edge }
        def fits = whole(roi.getBoundsWidth(), columnOf(tile) == columns - 1) &&
                whole(roi.getBoundsHeight(), rowOf(tile) == rows - 1) &&
                Math.abs(left + columnOf(tile) * pitch - roi.getBoundsX()) < 1 &&
                Math.abs(top + rowOf(tile) * pitch - roi.getBoundsY()) < 1
        if (!fits) {
            throw new IllegalStateException("qprd: the tiles of ${image.name} are not those of one prediction: nothing was " +
                    'changed. Run "qprd write-back" or import_predictions.groovy to have them anew.')
        }
        def cell = rowOf(tile) * columns + columnOf(tile)
        def measured = tile.getMeasurementList()
        grid.scores[cell] = measured.get(OWN_SCORE)
        grid.probabilities[cell] = calibrated ? measured.get(OWN_PROBABILITY) : Double.NaN
    }
    grid
}

/** Micrometers a pixel: QuPath's, or those that the prediction assumed; NaN if neither is known. */
double resolutionOf(Map image) {
    def calibration = image.data.getServer().getPixelCalibration()
    calibration.hasPixelSizeMicrons() ? calibration.getAveragedPixelSizeMicrons()
            : resultsOf(image)?.get('mpp')?.getAsDouble() ?: Double.NaN
}

/** A setting with which the prediction of an image drew its contours; the default where none is recorded. */
double contourSetting(Map image, String name) {
    def recorded = resultsOf(image)?.get(name)
    recorded == null || recorded.isJsonNull() ? CONTOUR_DEFAULTS[name] : recorded.getAsDouble()
}

/**
 * Outlines of what is at or above a threshold, largest first; nothing is changed. Without a known resolution none
 * is dropped and none simplified.
 *
 * @param minAreaUm2   smaller contours are dropped, smaller holes filled; null does as the prediction did
 * @param toleranceUm  how far a simplified outline may be from the exact one; null, too
 */
List<Polygon> outlinesAt(Map image, Grid grid, double threshold, Double minAreaUm2 = null, Double toleranceUm = null) {
    def server = image.data.getServer()
    def mpp = resolutionOf(image)
    def frame = new Envelope(0, server.getWidth(), 0, server.getHeight())
    def minArea = minAreaUm2 != null ? minAreaUm2 : contourSetting(image, 'min_area_um2')
    def tolerance = toleranceUm != null ? toleranceUm : contourSetting(image, 'tolerance_um')
    Double.isNaN(mpp) ? grid.contours(threshold, frame, 0d, 0d)
            : grid.contours(threshold, frame, minArea / (mpp * mpp), tolerance / mpp)
}

/**
 * Replace the contours of an image by those at a threshold, save it with that threshold, and say what was done.
 * Tiles at or above it get the class of the contours.
 */
String drawContours(Map image, Grid grid, double threshold, Double minAreaUm2 = null, Double toleranceUm = null) {
    def polygons = outlinesAt(image, grid, threshold, minAreaUm2, toleranceUm)
    def mpp = resolutionOf(image)
    def (hierarchy, project, tiles) = [image.hierarchy, image.project, grid.tiles]

    // All is known; what follows changes the image.
    def earlier = hierarchy.getAllObjects(false).findAll { isOwnContour(it) }
    def isContourClass = { isOwnClass(it) && !partsOf(it).contains(REVIEW) }
    def contourClass = earlier.findResult { it.getPathClass() } ?:
            tiles.findResult { isContourClass(it.getPathClass()) ? it.getPathClass() : null } ?:
            project.getPathClasses().find(isContourClass) ?: PathClass.fromString(CONTOUR_CLASS, ColorTools.packRGB(*CONTOUR_COLOR))
    removeOwn(image, earlier)

    // A contour that a user accepted keeps its id; the new one at its place needs another.
    def taken = hierarchy.getAllObjects(false).collect { it.getID() } as HashSet
    def bundle = image.entry.getMetadataValue(OWN_BUNDLE) ?: ''
    def plane = tiles[0].getROI().getImagePlane()
    def contours = polygons.withIndex().collect { polygon, index ->
        def contour = PathObjects.createAnnotationObject(GeometryTools.geometryToROI(polygon, plane), contourClass)
        def id = Grid.uuid("${bundle}/${image.entry.getID()}/contour/${index}")
        for (int again = 1; taken.contains(id); again++) {
            id = Grid.uuid("${bundle}/${image.entry.getID()}/contour/${index}/${again}")
        }
        taken.add(id)
        contour.setID(id)
        def measured = contour.getMeasurementList()
        measured.put(OWN_NUMBER, index + 1 as double)
        def cells = grid.cellsIn(polygon)
        measured.put(OWN_MEAN_SCORE, cells.collect { grid.scores[it] }.average() as double)
        measured.put(OWN_MAX_SCORE, cells.collect { grid.scores[it] }.max() as double)
        if (grid.calibrated) {
            measured.put(OWN_MEAN_PROBABILITY, cells.collect { grid.probabilities[it] }.average() as double)
        }
        if (!Double.isNaN(mpp)) {
            measured.put(OWN_AREA, polygon.getArea() * mpp * mpp)
        }
        contour
    }
    hierarchy.addObjects(contours)

    def measurement = tileMeasurement(tiles)
    def above = tiles.findAll { it.getMeasurementList().get(measurement) >= threshold } as LinkedHashSet
    tiles.each { tile ->
        if (above.contains(tile)) {
            tile.setPathClass(contourClass)
            // A new class takes the color away, and QuPath would outline the tile.
            tile.setColor(TILE_COLOR)
        } else if (isContourClass(tile.getPathClass())) {
            tile.resetPathClass()
        }
    }
    hierarchy.fireObjectClassificationsChangedEvent(this, tiles)

    // The threshold of a slide is a raw score: the lowest that reaches the probability, or one that no tile reaches.
    def scoreOf = { tile -> tile.getMeasurementList().get(OWN_SCORE) }
    def raw = !grid.calibrated ? threshold : above ? above.collect(scoreOf).min() : tiles.collect(scoreOf).max() + 0.001d
    def told = [(OWN_THRESHOLD): String.format(Locale.ROOT, '%.4f', raw), (OWN_THRESHOLD_SET_IN): 'QuPath'] +
            (grid.calibrated ? [(OWN_PROBABILITY_THRESHOLD): threshold.toString()] : [:])
    if (image.saves) {
        listClasses(project, contours + above.toList())
    }
    saveImage(image, told) { false }
    "qprd: ${above.size()} of ${tiles.size()} tiles of ${image.name} have a ${measurement - OWN_PREFIX} of ${threshold} or more: " +
            "${counted(contours.size(), 'contour')}, ${counted(earlier.size(), 'earlier one')} replaced"
}

/** The scores of the tiles, and the outlines of what is at or above a threshold. */
@CompileStatic
class Grid {
    final double left, top, pitch
    final int rows, columns
    final List tiles
    final boolean calibrated
    final double[] scores, probabilities
    private final GeometryFactory factory = new GeometryFactory()

    Grid(List tiles, boolean calibrated, double left, double top, double pitch, int rows, int columns) {
        this.tiles = tiles
        this.calibrated = calibrated
        this.left = left
        this.top = top
        this.pitch = pitch
        this.rows = rows
        this.columns = columns
        scores = new double[rows * columns]
        probabilities = new double[rows * columns]
        Arrays.fill(scores, Double.NaN)
        Arrays.fill(probabilities, Double.NaN)
    }

    /**
     * The iso-line of the surface through the centers of the tiles, as qprd/results/contours.py draws it:
     * marching squares with linear interpolation, along the edge of a tile where tissue ends.
     * Largest first.
     */
    List<Polygon> contours(double threshold, Envelope image, double minArea, double tolerance) {
        def polygonizer = new Polygonizer(true)
        outline(excess(calibrated ? probabilities : scores, threshold), polygonizer)
        def large = new ArrayList<Geometry>()
        for (Polygon polygon : polygonsOf(polygonizer.getGeometry())) {
            def holes = (0..<polygon.getNumInteriorRing()).collect { int i -> polygon.getInteriorRingN(i) }
                    .findAll { factory.createPolygon(it).getArea() >= minArea }
            def filled = factory.createPolygon(polygon.getExteriorRing(), holes as LinearRing[])
            if (filled.getArea() >= minArea) {
                // Where a ring begins is chance, and the simplification keeps that point.
                large.add(filled.norm())
            }
        }
        if (large.isEmpty()) {
            return []
        }
        large.sort()
        // A hole that was filled may have had a region in it. All are simplified together, so that none
        // crosses another, and then rounded each by itself, so that none is joined to another.
        def simple = TopologyPreservingSimplifier.simplify(UnaryUnionOp.union(large), tolerance)
        def frame = factory.toGeometry(image)
        return polygonsOf(simple)
                .collectMany { polygonsOf(GeometryPrecisionReducer.reduce(it.intersection(frame), new PrecisionModel(100))) }
                .findAll { it.getArea() > 0 && it.getArea() >= minArea }
                .sort { Polygon a, Polygon b -> b.getArea() <=> a.getArea() ?: a.compareTo(b) }
    }

    /** The tiles whose centers are in a polygon; of one too thin to have any, those it overlaps. */
    List<Integer> cellsIn(Polygon polygon) {
        def bounds = polygon.getEnvelopeInternal()
        def locator = new IndexedPointInAreaLocator(polygon)
        def inside = new ArrayList<Integer>()
        def touched = new ArrayList<Integer>()
        int toRow = Math.min(rows - 1, (int) Math.floor((bounds.getMaxY() - top) / pitch))
        int toColumn = Math.min(columns - 1, (int) Math.floor((bounds.getMaxX() - left) / pitch))
        for (int row = Math.max(0, (int) Math.floor((bounds.getMinY() - top) / pitch)); row <= toRow; row++) {
            for (int column = Math.max(0, (int) Math.floor((bounds.getMinX() - left) / pitch)); column <= toColumn; column++) {
                int cell = row * columns + column
                if (Double.isNaN(scores[cell])) {
                    continue
                }
                touched.add(cell)
                def center = new Coordinate(left + (column + 0.5d) * pitch, top + (row + 0.5d) * pitch)
                if (locator.locate(center) != Location.EXTERIOR) {
                    inside.add(cell)
                }
            }
        }
        return inside.isEmpty() ? touched : inside
    }

    /** A UUID, as qprd/predictions.py makes it. */
    static UUID uuid(CharSequence text) {
        def space = UUID.fromString('6d2f2ad4-30b8-5b0c-9d0e-6f1b7d0c8a11')
        def digest = MessageDigest.getInstance('SHA-1')
        digest.update(ByteBuffer.allocate(16).putLong(space.getMostSignificantBits())
                .putLong(space.getLeastSignificantBits()).array())
        byte[] hash = digest.digest(text.toString().getBytes(StandardCharsets.UTF_8))
        hash[6] = (byte) ((hash[6] & 0x0f) | 0x50)
        hash[8] = (byte) ((hash[8] & 0x3f) | 0x80)
        def buffer = ByteBuffer.wrap(hash)
        // Ids of ours begin with "qprd".
        return new UUID((0x71707264L << 32) | (buffer.getLong() & 0xffffffffL), buffer.getLong())
    }

    private static List<Polygon> polygonsOf(Geometry geometry) {
        def found = new ArrayList<Polygon>()
        for (int i = 0; i < geometry.getNumGeometries(); i++) {
            def part = geometry.getGeometryN(i)
            if (part instanceof Polygon && !part.isEmpty()) {
                found.add((Polygon) part)
            }
        }
        return found
    }

    /**
     * How far each tile is over the threshold, with one cell of outside on every side; never 0, which
     * would put the outline through a center. A cell without a tile gets the negative mean of its
     * neighbors above the threshold: the outline is midway.
     */
    private double[] excess(double[] values, double threshold) {
        int width = columns + 2
        double largest = 0
        // Groovy takes NaN for greater than any number.
        for (double value : values) {
            if (!Double.isNaN(value) && Math.abs(value - threshold) > largest) {
                largest = Math.abs(value - threshold)
            }
        }
        double smallest = 1e-3d * (largest > 0 ? largest : 1)
        def over = new double[(rows + 2) * width]
        Arrays.fill(over, Double.NaN)
        for (int row = 0; row < rows; row++) {
            for (int column = 0; column < columns; column++) {
                double value = values[row * columns + column]
                if (!Double.isNaN(value)) {
                    over[(row + 1) * width + column + 1] = value >= threshold ? Math.max(value - threshold, smallest)
                            : Math.min(value - threshold, -smallest)
                }
            }
        }
        double[] result = over.clone()
        for (int row = 0; row < rows + 2; row++) {
            for (int column = 0; column < width; column++) {
                int cell = row * width + column
                if (!Double.isNaN(over[cell])) {
                    continue
                }
                double total = 0
                int count = 0
                double[] around = [row > 0 ? over[cell - width] : Double.NaN, row <= rows ? over[cell + width] : Double.NaN,
                                   column > 0 ? over[cell - 1] : Double.NaN, column <= columns ? over[cell + 1] : Double.NaN]
                for (double neighbor : around) {
                    if (!Double.isNaN(neighbor) && neighbor > 0) {
                        total += neighbor
                        count++
                    }
                }
                // A hair below, so that a corner between two cells of tissue and two of glass does not join.
                result[cell] = count > 0 ? Math.min(-(1 + 1e-9d) * total / count, -smallest) : -smallest
            }
        }
        return result
    }

    /** The outline of what is positive, piece by piece: one or two for each square of four centers. */
    private void outline(double[] excess, Polygonizer pieces) {
        int width = columns + 2
        for (int row = 0; row <= rows; row++) {
            for (int column = 0; column <= columns; column++) {
                double a = excess[row * width + column], b = excess[row * width + column + 1]
                double d = excess[(row + 1) * width + column], e = excess[(row + 1) * width + column + 1]
                // A side is walked the same way for both of its squares, which so find the same point.
                def upper = (a > 0) == (b > 0) ? null : at(column + a / (a - b), row)
                def lower = (d > 0) == (e > 0) ? null : at(column + d / (d - e), row + 1)
                def before = (a > 0) == (d > 0) ? null : at(column, row + a / (a - d))
                def after = (b > 0) == (e > 0) ? null : at(column + 1, row + b / (b - e))
                def crossed = [upper, lower, before, after].findAll { it != null }
                if (crossed.size() == 2) {
                    piece(pieces, crossed[0], crossed[1])
                } else if (crossed.size() == 4) {
                    // Two corners across are inside: their mean decides whether they are joined.
                    boolean joined = a + b + d + e > 0
                    piece(pieces, upper, (a > 0) == joined ? after : before)
                    piece(pieces, lower, (a > 0) == joined ? before : after)
                }
            }
        }
    }

    private Coordinate at(double column, double row) {
        // Column and row 1 are the center of the first cell.
        return new Coordinate(left + (column - 0.5d) * pitch, top + (row - 0.5d) * pitch)
    }

    private void piece(Polygonizer pieces, Coordinate from, Coordinate to) {
        pieces.add(factory.createLineString([from, to] as Coordinate[]))
    }
}
// ---- end of part contours ----

// ---- part overlay: generated from parts/overlay.groovy, do not edit here ----
Path scoreMapFile(Map image) {
    image.folder.resolve('results').resolve(image.entry.getID()).resolve('score_map.ome.tif')
}

/** The score map of an image, thinned out by whole steps to the most pixels that are wanted; null if there is none. */
Map scoreMapOf(Map image, long mostPixels) {
    def file = scoreMapFile(image)
    if (!Files.isRegularFile(file)) {
        return null
    }
    resultsOf(image)

    // By Java's own reader: it is in every QuPath, and reads the largest level.
    def values = null
    def description = null
    def step = 1
    def size = null
    def stream = ImageIO.createImageInputStream(file.toFile())
    try {
        def reader = ImageIO.getImageReadersByFormatName('tiff').next()
        reader.setInput(stream)
        size = [reader.getWidth(0), reader.getHeight(0)]
        while ((size[0] as long) * size[1] > mostPixels * step * step) {
            step++
        }
        def how = reader.getDefaultReadParam()
        how.setSourceSubsampling(step, step, 0, 0)
        values = reader.read(0, how).getRaster()
        description = TIFFDirectory.createFromMetadata(reader.getImageMetadata(0)).getTIFFField(270).getAsString(0)
    } finally {
        stream?.close()
    }
    def factory = DocumentBuilderFactory.newInstance()
    factory.setFeature('http://apache.org/xml/features/disallow-doctype-decl', true)
    def root = factory.newDocumentBuilder().parse(new ByteArrayInputStream(description.getBytes(StandardCharsets.UTF_8))).getDocumentElement()
    def all = { tag -> def nodes = root.getElementsByTagName(tag); (0..<nodes.getLength()).collect { nodes.item(it) } }
    def grid = all('M').collectEntries { [it.getAttribute('K'), Double.parseDouble(it.getTextContent())] }

    def server = image.data.getServer()
    def cell = grid.cell_px
    def fits = grid.x_px == 0 && grid.y_px == 0 && Math.ceil(server.getWidth() / cell - 1e-6) == size[0] &&
            Math.ceil(server.getHeight() / cell - 1e-6) == size[1]
    if (!fits) {
        throw new IllegalStateException("qprd: the score map of ${image.name} is of an image of another size: nothing is shown. " +
                'Run "qprd predict" again.')
    }
    def (width, height) = [values.getWidth(), values.getHeight()]
    float[] scores = values.getSamples(0, 0, width, height, 0, (float[]) null)
    def scored = 0
    def low = Float.POSITIVE_INFINITY
    def high = Float.NEGATIVE_INFINITY
    for (float score : scores) {
        if (!Float.isNaN(score)) {
            scored++
            low = Math.min(low, score)
            high = Math.max(high, score)
        }
    }
    [scores: scores, width: width, height: height, cell: cell, step: step, scored: scored, low: low, high: high,
     calibrated: all('Channel')[0].getAttribute('Name') == 'probability']
}

/** A layer over the image in the colors of its score map; what is below the least value is clear. */
BufferedImageOverlay overlayOf(viewer, Map map, List range, double least, String colorMap) {
    def colors = ColorMaps.getColorMaps().get(colorMap)
    def picture = new BufferedImage(map.width, map.height, BufferedImage.TYPE_INT_ARGB)
    int[] pixels = new int[map.width * map.height]
    float[] scores = map.scores
    for (int i = 0; i < scores.length; i++) {
        // Groovy takes NaN, not scored, for greater than any number.
        if (!Float.isNaN(scores[i]) && scores[i] >= least) {
            pixels[i] = colors.getColor(scores[i], range[0], range[1]) | 0xff000000
        }
    }
    picture.setRGB(0, 0, map.width, map.height, pixels, 0, map.width)
    def pitch = map.step * map.cell
    def region = ImageRegion.createInstance(0, 0, Math.round(map.width * pitch) as int, Math.round(map.height * pitch) as int, 0, 0)
    def overlay = new BufferedImageOverlay(viewer, [(region): picture])
    overlay.setInterpolation(ImageInterpolation.BILINEAR)
    overlay
}
// ---- end of part overlay ----

// ---- part review: generated from parts/review.groovy, do not edit here ----
/**
 * What is to review, in its order: regions by their rank, then contours and pieces of large ones, the least certain
 * first.
 *
 * @param accepted  class of what is accepted; null takes that of the contour without "qprd"
 * @param pieceUm   a contour that is longer than two such edges is asked about in squares of this edge
 * @param most      so many pieces at the most
 * @return items, and by their ids what is told of each and which class it gets; how many regions, contours, large
 *         ones and pieces there are
 */
Map reviewOf(Map image, String accepted, double pieceUm, int most) {
    def annotations = image.hierarchy.getAnnotationObjects()
    // NaN, of a region whose outline was changed, comes last.
    def rankOf = { object -> object.getMeasurementList().get(OWN_RANK) }
    def numberOf = { object -> object.getMeasurementList().get(OWN_NUMBER) }
    def regions = annotations.findAll { isReviewClass(it.getPathClass()) }
            .sort(false) { a, b -> rankOf(a) <=> rankOf(b) ?: a.getID() <=> b.getID() }
    def contours = annotations.findAll { isOwnContour(it) }
    def calibrated = contours.every { it.getMeasurements().containsKey(OWN_MEAN_PROBABILITY) }
    def measurement = calibrated ? OWN_MEAN_PROBABILITY : OWN_MEAN_SCORE
    def meanOf = { object -> object.getMeasurementList().get(measurement) }

    def calibration = image.data.getServer().getPixelCalibration()
    def edge = pieceUm / (calibration.hasPixelSizeMicrons() ? calibration.getAveragedPixelSizeMicrons() : 0.5d)
    def (large, small) = contours.split { Math.max(it.getROI().getBoundsWidth(), it.getROI().getBoundsHeight()) > 2 * edge }
    def numberOfPiece = [:]
    def pieces = large.collectMany { contour ->
        piecesOf(image, contour, edge, calibrated).each { numberOfPiece[it.getID()] = numberOf(contour) }
    }
    pieces = pieces.sort(false) { a, b -> meanOf(a) <=> meanOf(b) ?:
            a.getROI().getBoundsY() <=> b.getROI().getBoundsY() ?: a.getROI().getBoundsX() <=> b.getROI().getBoundsX() }
    def byMean = { a, b -> meanOf(a) <=> meanOf(b) ?: a.getID() <=> b.getID() }
    def items = regions + (small + pieces.take(most)).sort(false, byMean)

    def tell = { object ->
        def number = { value -> Double.isNaN(value) ? '' : " ${value as int}" }
        def what = isReviewClass(object.getPathClass()) ? 'Region' + number(rankOf(object)) :
                numberOfPiece.containsKey(object.getID()) ? 'Piece of contour' + number(numberOfPiece[object.getID()])
                        : 'Contour' + number(numberOf(object))
        def mean = meanOf(object)
        what + (Double.isNaN(mean) ? '' : ", ${measurement - OWN_PREFIX} ${String.format(Locale.ROOT, '%.3f', mean)}")
    }
    def plain = { object -> (partsOf(object.getPathClass()) - OWN).join(': ') ?: null }
    def tumor = contours.findResult(plain) ?: 'Tumor'
    def classOf = { object ->
        accepted ?: (isReviewClass(object.getPathClass()) ? tumor : plain(object) ?: tumor)
    }
    [items: items, told: items.collectEntries { [it.getID(), tell(it)] },
     accepted: items.collectEntries { [it.getID(), classOf(it)] },
     regions: regions.size(), contours: contours.size(), large: large.size(), pieces: Math.min(pieces.size(), most)]
}

/**
 * Squares of a contour, as nobody can answer for one that covers half a slide: those with tissue that nobody has
 * judged. They are in the image once somebody accepts or rejects them.
 */
List piecesOf(Map image, contour, double edge, boolean calibrated) {
    def roi = contour.getROI()
    def geometry = roi.getGeometry()
    def outline = PreparedGeometryFactory.prepare(geometry)
    def values = [:].withDefault { [] }
    image.hierarchy.getTileObjects().findAll { it.getMeasurements().containsKey(OWN_SCORE) }.each { tile ->
        def (x, y) = [tile.getROI().getCentroidX(), tile.getROI().getCentroidY()]
        if (outline.contains(geometry.getFactory().createPoint(new Coordinate(x, y)))) {
            values[[(x / edge) as int, (y / edge) as int]] << tile.getMeasurementList()
        }
    }
    def judged = image.hierarchy.getAnnotationObjects().findAll { !isOwnClass(it.getPathClass()) }
            .collect { it.getROI().getGeometry() }
    values.findResults { cell, measured ->
        def square = GeometryTools.createRectangle(cell[0] * edge, cell[1] * edge, edge, edge)
        def part = GeometryTools.ensurePolygonal(square.intersection(geometry))
        def known = judged.sum { it.intersects(part) ? it.intersection(part).getArea() : 0d } ?: 0d
        if (part.getArea() < 0.1 * edge * edge || known > 0.5 * part.getArea()) {
            return null
        }
        def piece = PathObjects.createAnnotationObject(GeometryTools.geometryToROI(part, roi.getImagePlane()),
                contour.getPathClass())
        piece.setID(ownId())
        def average = { key -> measured.collect { it.get(key) }.average() as double }
        piece.getMeasurementList().put(OWN_MEAN_SCORE, average(OWN_SCORE))
        if (calibrated) {
            piece.getMeasurementList().put(OWN_MEAN_PROBABILITY, average(OWN_PROBABILITY))
        }
        piece
    }
}

/**
 * An item as it is in the image now, where an edit or QuPath's Undo may have put another annotation of its id. Itself if
 * there is none: a piece that nobody has judged.
 */
def annotationOf(Map image, item) {
    image.hierarchy.getAnnotationObjects().find { it.getID() == item.getID() } ?: item
}

/** How many of the items have no answer; there may be a hundred thousand objects to look through for them. */
int unanswered(Map image, List items) {
    def present = image.hierarchy.getAnnotationObjects().collectEntries { [it.getID(), it] }
    items.count { isOwnClass((present[it.getID()] ?: it).getPathClass()) }
}

/** An item as an annotation of the image: a piece comes into it as a copy. */
def addedOf(Map image, item) {
    def found = annotationOf(image, item)
    if (!found.is(item) || image.hierarchy.getAnnotationObjects().contains(item)) {
        return found
    }
    def copy = PathObjects.createAnnotationObject(item.getROI(), item.getPathClass())
    copy.setID(item.getID())
    item.getMeasurements().each { name, value -> copy.getMeasurementList().put(name, value as double) }
    image.hierarchy.addObject(copy)
    copy
}

/** Give an item a class, by which it is the user's. */
void judge(Map image, item, String className, source) {
    def annotation = addedOf(image, item)
    annotation.setPathClass(PathClass.fromString(className))
    image.hierarchy.fireObjectClassificationsChangedEvent(source, [annotation])
}
// ---- end of part review ----
