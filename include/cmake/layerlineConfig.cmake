# find_package(layerline [VERSION] [COMPONENTS shared|static]) gives the target layerline::layerline.
#
# Without a component it is the shared library, or the static one where that alone is installed. Installed by
# `make install` or `cargo cinstall` together with the libraries and layerline.pc, from which it takes what the static library needs of the
# system; all of them may be moved to another prefix together.

get_filename_component(_layerline_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

set(_layerline_kind)
foreach(_layerline_component IN LISTS layerline_FIND_COMPONENTS)
    if(NOT _layerline_component MATCHES "^(shared|static)$")
        set(layerline_FOUND FALSE)
        set(layerline_NOT_FOUND_MESSAGE "layerline has no component \"${_layerline_component}\": there are shared and static")
        return()
    endif()
    if(_layerline_kind AND NOT _layerline_kind STREQUAL _layerline_component)
        set(layerline_FOUND FALSE)
        set(layerline_NOT_FOUND_MESSAGE "shared or static: a program wants one of them")
        return()
    endif()
    set(_layerline_kind "${_layerline_component}")
endforeach()

# The folder is what the installer was told or took for the system's; all of its names are looked at.
set(_layerline_folders
    "${_layerline_prefix}/lib" "${_layerline_prefix}/lib64" "${_layerline_prefix}/lib/${CMAKE_LIBRARY_ARCHITECTURE}"
    "${_layerline_prefix}/bin")
# On Windows it has the same name for every linker.
set(_layerline_names "${CMAKE_SHARED_LIBRARY_PREFIX}layerline${CMAKE_SHARED_LIBRARY_SUFFIX}")
if(WIN32)
    set(_layerline_names layerline.dll)
endif()
find_file(layerline_SHARED_LIBRARY NAMES ${_layerline_names}
    PATHS ${_layerline_folders} NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
find_file(layerline_STATIC_LIBRARY "${CMAKE_STATIC_LIBRARY_PREFIX}layerline${CMAKE_STATIC_LIBRARY_SUFFIX}"
    PATHS ${_layerline_folders} NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
find_file(layerline_IMPORT_LIBRARY NAMES layerline.dll.lib layerline.dll.a liblayerline.dll.a
    PATHS ${_layerline_folders} NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
mark_as_advanced(layerline_SHARED_LIBRARY layerline_STATIC_LIBRARY layerline_IMPORT_LIBRARY)

if(NOT _layerline_kind)
    if(layerline_SHARED_LIBRARY)
        set(_layerline_kind shared)
    else()
        set(_layerline_kind static)
    endif()
endif()
string(TOUPPER "${_layerline_kind}" _layerline_upper)
if(NOT layerline_${_layerline_upper}_LIBRARY)
    set(layerline_FOUND FALSE)
    set(layerline_NOT_FOUND_MESSAGE "no ${_layerline_kind} library of layerline below ${_layerline_prefix}")
    return()
endif()

if(NOT TARGET layerline::layerline)
    if(_layerline_kind STREQUAL "shared")
        add_library(layerline::layerline SHARED IMPORTED)
        if(layerline_IMPORT_LIBRARY)
            set_target_properties(layerline::layerline PROPERTIES IMPORTED_IMPLIB "${layerline_IMPORT_LIBRARY}")
        endif()
    else()
        get_filename_component(_layerline_folder "${layerline_STATIC_LIBRARY}" DIRECTORY)
        if(NOT EXISTS "${_layerline_folder}/pkgconfig/layerline.pc")
            set(layerline_FOUND FALSE)
            set(layerline_NOT_FOUND_MESSAGE
                "no ${_layerline_folder}/pkgconfig/layerline.pc: it says what the static library needs of the system")
            return()
        endif()
        file(STRINGS "${_layerline_folder}/pkgconfig/layerline.pc" _layerline_private REGEX "^Libs\\.private:")
        string(REGEX REPLACE "^Libs\\.private: *" "" _layerline_private "${_layerline_private}")
        separate_arguments(_layerline_private UNIX_COMMAND "${_layerline_private}")
        add_library(layerline::layerline STATIC IMPORTED)
        set_target_properties(layerline::layerline PROPERTIES INTERFACE_LINK_LIBRARIES "${_layerline_private}")
    endif()
    set_target_properties(layerline::layerline PROPERTIES
        IMPORTED_LOCATION "${layerline_${_layerline_upper}_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${_layerline_prefix}/include")
endif()
