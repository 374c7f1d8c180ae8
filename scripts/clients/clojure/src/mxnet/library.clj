(ns mxnet.library
  "Calls of MXNet's C API (include/mxnet/c_api.h) by JNA, in any libmxnet.so from 1.4 to 1.9."
  (:require [clojure.string :as string])
  (:import (com.sun.jna NativeLibrary Pointer)
           (com.sun.jna.ptr IntByReference PointerByReference)))

(def ^:private library
  (delay
    (let [library (NativeLibrary/getInstance (or (System/getenv "LIBMXNET")
                                                 (throw (ex-info "LIBMXNET must name a libmxnet.so" {}))))]
      ;; MXNet registers its older operators and their shape inference when it first lists them.
      (.invokeInt (.getFunction library "MXListAllOpNames") (object-array [(IntByReference.) (PointerByReference.)]))
      ;; MXNet computes and frees memory in its own threads: an exit meanwhile could abort or hang.
      (.addShutdownHook (Runtime/getRuntime)
                        (Thread. #(.invokeInt (.getFunction library "MXNDArrayWaitAll") (object-array 0))))
      library)))

(defn- function [name]
  (.getFunction ^NativeLibrary @library name))

(defn- last-error []
  (-> ^Pointer (.invokePointer (function "MXGetLastError") (object-array 0))
      (.getString 0)
      string/split-lines
      first))

(defn call
  "Calls a function of the C API; throws MXNet's message if it fails."
  [name & arguments]
  (when-not (zero? (.invokeInt (function name) (object-array arguments)))
    (throw (ex-info (str "MXNet: " (last-error)) {:function name}))))

(defn handle
  "Returns the handle that a function writes to its last argument."
  [name & arguments]
  (let [out (PointerByReference.)]
    (apply call name (concat arguments [out]))
    (.getValue out)))

(defn pointers
  "A C array of handles; nil is a null pointer."
  [handles]
  (into-array Pointer handles))

(defn strings
  "A C array of strings."
  [texts]
  (into-array String texts))

(defn listed-strings
  "Calls a function whose last arguments are (mx_uint* size, const char*** texts); returns the list."
  [name & arguments]
  (let [size (IntByReference.)
        texts (PointerByReference.)]
    (apply call name (concat arguments [size texts]))
    (if (zero? (.getValue size))
      []
      (vec (.getStringArray (.getValue texts) 0 (.getValue size))))))

(defn listed-handles
  "Calls a function whose last arguments are (mx_uint* size, void*** handles); returns the list."
  [name & arguments]
  (let [size (IntByReference.)
        handles (PointerByReference.)]
    (apply call name (concat arguments [size handles]))
    (vec (.getPointerArray (.getValue handles) 0 (.getValue size)))))

(defn attributes
  "{:num-hidden 2} as MXNet reads it: the names and the values as C arrays of strings."
  [options]
  [(strings (map #(string/replace (name %) "-" "_") (keys options)))
   (strings (map str (vals options)))])

(defn operator
  "The handle of an operator, such as \"FullyConnected\"."
  [name]
  (handle "NNGetOpHandle" name))
