(ns bundle
  "A bundle's files checked, and rows of token ids as a batch."
  (:require [clojure.data.json :as json]
            [clojure.java.io :as io]
            [clojure.string :as string])
  (:import (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)
           (java.security DigestInputStream MessageDigest)))

(def tasks ["classification" "multilabel" "regression" "tagging" "qa"])

(defn fail [& words]
  (throw (ex-info (apply str words) {})))

(defn- read-json [path]
  (when-not (.isFile (io/file path))
    (fail path ": no such file"))
  (json/read-str (slurp path)))

(defn- copy-checked
  "Copies a file of the bundle to the folder; the copy must be what the manifest says."
  [prefix files folder part]
  (let [file (io/file (str prefix "-" part))
        copy (doto (io/file folder (str "bundle-" part)) .deleteOnExit)
        digest (MessageDigest/getInstance "SHA-256")
        expected (files part)]
    (when-not (.isFile file)
      (fail file ": no such file"))
    (with-open [in (DigestInputStream. (io/input-stream file) digest)]
      (io/copy in copy))
    (when-not (and (= (.length copy) (expected "size"))
                   (= (apply str (map #(format "%02x" %) (.digest digest))) (expected "sha256")))
      (fail file ": differs from " prefix "-manifest.json"))))

(defn open
  "The signature of the bundle at a prefix, whose files are those of its manifest; its metadata have the :prefix of
  a checked copy, which another process does not replace, until the program ends. A head that was never trained is
  refused: its output is noise; so is an unknown task."
  [prefix]
  (let [{:strs [files format_version]} (read-json (str prefix "-manifest.json"))
        folder (doto (.toFile (Files/createTempDirectory "bertsym" (make-array FileAttribute 0))) .deleteOnExit)]
    (when-not (= 2 format_version)
      (fail prefix ": bundle format " format_version ", this program reads format 2"))
    (run! (partial copy-checked prefix files folder) ["symbol.json" "0000.params" "signature.json"])
    (let [copy (str (io/file folder "bundle"))
          signature (read-json (str copy "-signature.json"))]
      (when (and (false? (signature "trained")) (not= "encoder" (signature "kind")))
        (fail prefix ": untrained head: train it first, for example with bertsym finetune"))
      (when-not (contains? (set (cons nil tasks)) (signature "task"))
        (fail prefix ": task " (signature "task") ": not one of " (string/join ", " tasks)))
      (with-meta signature {:prefix copy}))))

(defn- sequence-input? [input]
  (= 2 (count (input "shape"))))

(defn- check-row [row number signature]
  (let [fault #(apply fail "line " number ": " %&)
        inputs (signature "inputs")]
    (doseq [{:strs [name] :as input} inputs
            :let [value (get row name)]]
      (when-not (if (sequence-input? input)
                  (and (sequential? value) (every? nat-int? value))
                  (int? value))
        (fault name " must be " (if (sequence-input? input) "a list of numbers from 0" "a number"))))
    (let [lengths (map #(count (row (% "name"))) (filter sequence-input? inputs))
          longest (get signature "max_length" Long/MAX_VALUE)]
      (when-not (apply = lengths)
        (fault "the lists differ in length"))
      (when (> (first lengths) longest)
        (fault (first lengths) " tokens, but the model takes no more than " longest))
      ;; Otherwise MXNet reads out of bounds.
      (doseq [{:strs [name]} (remove sequence-input? inputs)]
        (when-not (<= 1 (row name) (first lengths))
          (fault name " is " (row name) ", not from 1 to " (first lengths)))))
    (with-meta row {:line number})))

(defn rows
  "The checked rows of JSON Lines; their metadata have the line."
  [reader signature]
  (let [parse (fn [number line]
                (let [row (try (json/read-str line)
                               (catch Exception _))]
                  (when-not (map? row)
                    (fail "line " number ": not a JSON object: the rows are the output of bertsym tokenize"))
                  (check-row row number signature)))]
    (or (seq (keep-indexed #(when-not (string/blank? %2) (parse (inc %1) %2)) (line-seq reader)))
        (fail "no rows"))))

(defn batch
  "Rows as one batch, {input {:shape [2 7] :values float-array}}; padded to `length` or to the longest row.
  The first input has the token ids, which are padded with pad_id; a symbol that is not a BERT has none."
  [signature rows & {:keys [length]}]
  (into {} (for [{:strs [name shape] :as input} (signature "inputs")
                 :let [values (map #(% name) rows)
                       padding (if (= input (first (signature "inputs"))) (get signature "pad_id" 0) 0)
                       columns (when (sequence-input? input)
                                 (let [size (second shape)]
                                   (if (number? size) size (or length (apply max (map count values))))))]]
             [name (if columns
                     {:shape [(count rows) columns]
                      :values (float-array (mapcat #(take columns (concat % (repeat padding))) values))}
                     {:shape [(count rows)] :values (float-array values)})])))

(defmacro run-program
  "Runs the body; an exception becomes one line and exit code 1."
  [& body]
  `(do (try ~@body
            (catch Exception error#
              (binding [*out* *err*]
                (println (str "error: " (string/join " " (string/split-lines (str (or (.getMessage error#) error#)))))))
              (System/exit 1)))
       (flush)
       (System/exit 0)))
